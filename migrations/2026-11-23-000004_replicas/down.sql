ALTER TABLE peppers DROP COLUMN in_use;
ALTER TABLE log_head DROP CONSTRAINT log_head_fits_a_stamp;
DROP TABLE replicas;
