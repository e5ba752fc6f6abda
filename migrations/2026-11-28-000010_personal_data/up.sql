-- What people typed, apart from what the chain hashes: events have a salted commitment to it, and this the text and the
-- salt, until it is erased.
CREATE TABLE event_details (
    -- The event's.
    number bigint PRIMARY KEY CHECK (number > 0),
    account_id text COLLATE "C",
    target_type text NOT NULL,
    target_id text COLLATE "C" NOT NULL,
    -- JSON: for each change with text, its place among the event's changes, the salt, and both values.
    details text NOT NULL
);
CREATE INDEX event_details_by_target ON event_details (account_id, target_type, target_id, number);

-- Deleted keys that have text of people left.
CREATE INDEX api_keys_with_text ON api_keys (account_id, key_id)
    WHERE state = 'deleted' AND (name <> 'erased' OR comment <> '' OR metadata <> '{}');
