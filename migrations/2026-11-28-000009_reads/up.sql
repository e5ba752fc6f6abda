-- What lets every list walk one index in its own order. On a large store, make the index of accounts beforehand without
-- a lock, by CREATE INDEX CONCURRENTLY.

-- Accounts are listed without the deleted ones, however many those are.
CREATE INDEX IF NOT EXISTS accounts_not_deleted ON accounts (account_id) WHERE state <> 'deleted';

-- Which events list a key among those that they affect, in order of number: a GIN index knows no order, so a page
-- would read all of them. Written by the log's own inserts, whichever release makes them.
CREATE TABLE event_affected_keys (
    key_id uuid NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (key_id, number)
);

CREATE FUNCTION events_note_affected_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM event_affected_keys WHERE key_id = ANY(OLD.affected_key_ids) AND number = OLD.number;
    ELSE
        INSERT INTO event_affected_keys (key_id, number)
        SELECT DISTINCT affected.key_id, NEW.number FROM unnest(NEW.affected_key_ids) AS affected (key_id)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER events_affected_keys_added AFTER INSERT ON events
    FOR EACH ROW WHEN (NEW.affected_key_ids <> '{}') EXECUTE FUNCTION events_note_affected_keys();
CREATE TRIGGER events_affected_keys_removed AFTER DELETE ON events
    FOR EACH ROW WHEN (OLD.affected_key_ids <> '{}') EXECUTE FUNCTION events_note_affected_keys();

INSERT INTO event_affected_keys (key_id, number)
SELECT DISTINCT affected.key_id, e.number FROM events e, unnest(e.affected_key_ids) AS affected (key_id)
WHERE e.affected_key_ids <> '{}'
ON CONFLICT DO NOTHING;
