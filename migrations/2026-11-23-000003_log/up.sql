-- The one log: gap-free, in commit order, hash-chained over the exact stored bytes.

CREATE TABLE events (
    number bigint PRIMARY KEY CHECK (number > 0),
    epoch bigint NOT NULL CHECK (epoch > 0),
    event_id uuid NOT NULL UNIQUE,
    time timestamptz NOT NULL,
    kind text NOT NULL,
    account_id text COLLATE "C",
    target_type text NOT NULL,
    target_id text COLLATE "C" NOT NULL,
    affected_key_ids uuid[] NOT NULL,
    -- What the hash covers: hash = blake3(hash of the predecessor || payload).
    format_version smallint NOT NULL,
    payload bytea NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX events_by_account ON events (account_id, number);
CREATE INDEX events_by_target ON events (target_id, number) WHERE target_type = 'api_key';
CREATE INDEX events_by_affected_key ON events USING gin (affected_key_ids) WHERE affected_key_ids <> '{}';

-- One row: taken by UPDATE ... RETURNING as the last lock of every mutation, so that numbers are
-- gap-free and in commit order.
CREATE TABLE log_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL CHECK (epoch > 0),
    number bigint NOT NULL CHECK (number >= 0),
    time timestamptz NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
INSERT INTO log_head (epoch, number, time, hash) VALUES (1, 0, to_timestamp(0), decode(repeat('00', 32), 'hex'));
