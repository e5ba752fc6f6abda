-- The last event that `latchkey events archive` took out of the log, with its link: what the rest of the chain is
-- verified from. Number 0 is the beginning. Moved in the transaction that removes the rows, by the owner of the tables.
CREATE TABLE log_anchor (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL CHECK (epoch > 0),
    number bigint NOT NULL CHECK (number >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
INSERT INTO log_anchor (epoch, number, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));
