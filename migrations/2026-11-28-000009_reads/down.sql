DROP TRIGGER events_affected_keys_removed ON events;
DROP TRIGGER events_affected_keys_added ON events;
DROP FUNCTION events_note_affected_keys();
DROP TABLE event_affected_keys;
DROP INDEX accounts_not_deleted;
