DROP TABLE token_usage;
DROP TABLE api_key_secrets;
DROP TABLE api_key_teams;
DROP TABLE api_keys;
DROP FUNCTION api_keys_check_team_scope();
DROP TABLE peppers;
