ALTER TABLE log_head DROP COLUMN database_identity;
DROP FUNCTION latchkey_database_identity();
