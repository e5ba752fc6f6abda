DROP TRIGGER api_keys_erasure ON api_keys;
DROP FUNCTION api_keys_check_erasure();
ALTER TABLE api_keys DROP COLUMN ended_tokens_used_time;
DROP INDEX accounts_purging;
ALTER TABLE accounts
    DROP COLUMN deleted_api_key_count, DROP COLUMN delete_time, DROP COLUMN purging_team_ids, DROP COLUMN purging;
DROP INDEX user_roles_by_user, api_keys_team_permissions, roles_team_permissions, api_key_secrets_by_pepper;
