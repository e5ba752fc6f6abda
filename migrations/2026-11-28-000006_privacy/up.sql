-- Which database this is: what `pg_dump`, a base backup, `CREATE DATABASE ... TEMPLATE` and a promotion change, and a
-- restart does not. The system's identifier, its timeline and the database's oid; `-` for what cannot be asked.
--
-- The timeline is that of the log that is written now: the control file has a promotion's only after its checkpoint.
-- A standby, which writes none, has another identity than its primary, and so answers nothing. As its owner, so that
-- every role is told the same; each name is qualified, so that no search path changes what it means.
CREATE FUNCTION latchkey_database_identity() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    system_identifier text := '-';
    timeline text := '-';
BEGIN
    BEGIN
        system_identifier := (SELECT c.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() c);
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_function THEN NULL;
    END;
    BEGIN
        timeline := CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END;
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_function
        OR object_not_in_prerequisite_state THEN NULL;
    END;
    RETURN pg_catalog.concat_ws('/', system_identifier, timeline,
        (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()));
END
$$;

-- The identity of the database that the head was written in: recorded by the first process that finds none, and by
-- `latchkey accept-history`. Where the database's own is another, somebody restored it, and nothing is answered.
ALTER TABLE log_head ADD COLUMN database_identity text;
