-- The replicas that may answer from their caches: whom a revocation waits for. A row is made before its
-- process reads the log, and is gone only when the process gave it up or its time was over.

CREATE TABLE replicas (
    -- New for each process and each time that one joins again, so that nobody is taken for its past.
    incarnation uuid PRIMARY KEY,
    -- Goes up with each renewal: an observer who sees it stand still for the row's time may delete the row.
    renewal_no bigint NOT NULL DEFAULT 1 CHECK (renewal_no > 0),
    -- The revision whose fences are up; 0.0 until the process has read the log.
    applied_epoch bigint NOT NULL DEFAULT 0 CHECK (applied_epoch >= 0),
    applied_number bigint NOT NULL DEFAULT 0 CHECK (applied_number >= 0),
    -- How long it may answer after a renewal was sent, and how much longer it answers, marked as stale.
    lease_ms bigint NOT NULL CHECK (lease_ms BETWEEN 1 AND 86400000),
    stale_max_ms bigint NOT NULL CHECK (stale_max_ms BETWEEN 0 AND 86400000),
    -- The peppers that it verifies with.
    pepper_ids text[] NOT NULL CHECK (cardinality(pepper_ids) > 0 AND array_position(pepper_ids, NULL) IS NULL),
    -- For people: which process this is.
    name text NOT NULL CHECK (char_length(name) <= 200)
);

-- A replica packs a revision into one word: 23 bits of epoch, 40 of number. Beyond that nothing is appended.
ALTER TABLE log_head ADD CONSTRAINT log_head_fits_a_stamp CHECK (epoch < 8388608 AND number < 1099511627776);

-- Whether tokens may be live under it: set by the first that is minted, cleared when a server starts without it and
-- none is. A replica that lacks a pepper in use cannot tell an unknown token.
ALTER TABLE peppers ADD COLUMN in_use boolean NOT NULL DEFAULT true;
