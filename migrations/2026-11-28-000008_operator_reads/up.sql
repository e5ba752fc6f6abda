-- When a read by the reach of `system.operate` was last noted in an account's log (A3): at most once an hour for each
-- operator's key and account. Rows older than that are removed as new ones come. No foreign keys: neither keys nor
-- accounts wait for it.
CREATE TABLE operator_reads (
    key_id uuid NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    noted_time timestamptz NOT NULL,
    PRIMARY KEY (key_id, account_id)
);
CREATE INDEX operator_reads_by_time ON operator_reads (noted_time);
