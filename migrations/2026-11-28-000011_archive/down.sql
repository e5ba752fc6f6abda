-- Without the anchor, what is left of an archived log cannot be verified: then there is no way back.
DO $$
BEGIN
    IF (SELECT number FROM log_anchor) > 0 THEN
        RAISE EXCEPTION 'events were archived: the rest of the log is verified from log_anchor';
    END IF;
END
$$;
DROP TABLE log_anchor;
