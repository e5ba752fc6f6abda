-- Bounds for what grows: deletes of any size, erasure of what was deleted long ago, and an index for each statement
-- that walked a table. On a large store, make the indexes beforehand without a lock: see README.md.

-- Users' roles by user: the partial unique indexes do not serve a search without a role.
CREATE INDEX IF NOT EXISTS user_roles_by_user ON user_roles (account_id, user_id);
-- Which permissions are held on teams (P1: losing `team_scopable`).
CREATE INDEX IF NOT EXISTS api_keys_team_permissions ON api_keys USING gin (team_permissions)
    WHERE state <> 'deleted' AND team_permissions <> '{}';
CREATE INDEX IF NOT EXISTS roles_team_permissions ON roles USING gin (permissions) WHERE kind = 'team';
-- Whether a token is live under a pepper.
CREATE INDEX IF NOT EXISTS api_key_secrets_by_pepper ON api_key_secrets (pepper_id, end_time);

ALTER TABLE accounts
    -- Deleted keys that are still on record: bounded, so that creating and deleting cannot go on for ever.
    ADD COLUMN deleted_api_key_count integer NOT NULL DEFAULT 0 CHECK (deleted_api_key_count >= 0),
    -- What its keys were deleted at.
    ADD COLUMN delete_time timestamptz,
    -- Deleted teams that keys or users still name: to every reader they are gone. Few, so that each reader can
    -- afford to look.
    ADD COLUMN purging_team_ids text[] COLLATE "C" NOT NULL DEFAULT '{}'
        CHECK (cardinality(purging_team_ids) <= 64 AND array_position(purging_team_ids, NULL) IS NULL),
    -- A deleted account that still has keys, users, roles or teams: to every reader they are gone.
    ADD COLUMN purging boolean NOT NULL DEFAULT false CHECK (NOT purging OR state = 'deleted');
CREATE INDEX accounts_purging ON accounts (account_id) WHERE purging OR purging_team_ids <> '{}';

UPDATE accounts a SET deleted_api_key_count = c.count FROM (
    SELECT account_id, count(*) AS count FROM api_keys WHERE delete_time IS NOT NULL GROUP BY account_id
) c WHERE a.account_id = c.account_id;

-- The last use of the key's tokens that ended, so that their usage need not be kept.
ALTER TABLE api_keys ADD COLUMN ended_tokens_used_time timestamptz;

-- K6: only a deleted key can be erased, whoever asks.
CREATE FUNCTION api_keys_check_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'only a deleted key can be erased (K6)'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'api_keys_erasure';
END
$$;
CREATE TRIGGER api_keys_erasure BEFORE DELETE ON api_keys
    FOR EACH ROW WHEN (OLD.state <> 'deleted') EXECUTE FUNCTION api_keys_check_erasure();
