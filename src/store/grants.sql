-- What the application's role may do, set after every migration: {role} and {schema} are filled in.
-- Events may be read and appended, never changed (V6). Accounts and permissions are never deleted (A5, P1), so the
-- role cannot; a trigger holds it to keys that are deleted already (K6).
GRANT USAGE ON SCHEMA {schema} TO {role};

REVOKE ALL ON
    {schema}.permissions, {schema}.catalogue_head, {schema}.default_roles, {schema}.accounts, {schema}.teams,
    {schema}.roles, {schema}.users, {schema}.user_roles, {schema}.peppers, {schema}.api_keys,
    {schema}.api_key_teams, {schema}.api_key_secrets, {schema}.token_usage, {schema}.events,
    {schema}.event_affected_keys, {schema}.event_details, {schema}.log_head, {schema}.replicas, {schema}.operator_reads,
    {schema}.log_anchor
FROM {role};

GRANT SELECT, INSERT ON {schema}.events, {schema}.event_affected_keys, {schema}.peppers TO {role};
-- What people typed may be erased, and never changed: its commitment is in the event.
GRANT SELECT, INSERT, DELETE ON {schema}.event_details TO {role};
GRANT UPDATE (in_use) ON {schema}.peppers TO {role};
-- Only the owner archives events, and moves what the rest of the chain is verified from.
GRANT SELECT ON {schema}.log_anchor TO {role};
GRANT SELECT, UPDATE ON {schema}.log_head, {schema}.catalogue_head TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.permissions, {schema}.accounts TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON
    {schema}.default_roles, {schema}.teams, {schema}.roles, {schema}.users, {schema}.user_roles,
    {schema}.api_keys, {schema}.api_key_teams, {schema}.api_key_secrets, {schema}.token_usage, {schema}.replicas,
    {schema}.operator_reads
TO {role};

-- So that `serve` can tell whether the schema is its own.
GRANT SELECT ON {schema}.__diesel_schema_migrations TO {role};

-- So that the role may ask for untranslated messages, which `sqlstate.rs` reads. PostgreSQL 14 has no
-- such grant; there, and where it is refused, the server's own language must be English.
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 150000 THEN
        EXECUTE 'GRANT SET ON PARAMETER lc_messages TO {role}';
    END IF;
EXCEPTION WHEN insufficient_privilege OR internal_error THEN
    NULL;
END
$$;
