-- A store where one account is huge beside many small ones. {DIGEST} is the digest of the token of key 1, {KEY} its id in
-- the tables, {TARGET} in events.
--
-- `a1` has 52,500 keys, most of them deleted, all older than the last 20,000 of the others; 20,000 users of five team
-- roles each, 1,000 teams and 3,000 roles; a key with 5,000 ended tokens and 16,000 events. `b…` have five keys each,
-- and among theirs and those of `a1` lie the keys of `c1`; `d…` are deleted. Of the log `c1` has more than half, `a1` a
-- quarter, each of the others next to nothing.
SET session_replication_role = replica;
INSERT INTO accounts (account_id, display_name, state, api_key_count, create_time, revision_epoch, revision_number)
    SELECT 'a1', 'A', 'active', 20000, now(), 1, 0
    UNION ALL SELECT 'c1', 'C', 'active', 10000, now(), 1, 0
    UNION ALL SELECT 'b' || n, 'B', 'active', 5, now(), 1, 0 FROM generate_series(1, 2000) n
    UNION ALL SELECT 'd' || n, 'D', 'deleted', 0, now(), 1, 0 FROM generate_series(1, 20000) n;
INSERT INTO teams (account_id, team_id, display_name, revision_epoch, revision_number)
    SELECT 'a1', 't' || t, 'T', 1, 0 FROM generate_series(1, 1000) t
    UNION ALL SELECT 'c1', 't1', 'T', 1, 0
    UNION ALL SELECT 'b' || n, 't1', 'T', 1, 0 FROM generate_series(1, 2000) n;
INSERT INTO roles (account_id, role_id, display_name, kind, permissions, all_permissions, revision_epoch, revision_number)
    SELECT a, 'owner', 'O', 'base', '{}'::text[], true, 1, 0
    FROM (SELECT 'a1' UNION ALL SELECT 'b' || n FROM generate_series(1, 2000) n) x (a)
    UNION ALL SELECT 'a1', 'manager', 'M', 'team', '{x.z}', false, 1, 0
    UNION ALL SELECT 'b7', 'manager', 'M', 'team', '{x.z}', false, 1, 0
    UNION ALL SELECT 'a1', 'r' || n, 'R', 'team', '{x.q}', false, 1, 0 FROM generate_series(1, 3000) n;
INSERT INTO users (account_id, user_id, display_name, state, base_role_id, revision_epoch, revision_number)
    SELECT 'a1', 'u' || u, 'U', 'active', 'owner', 1, 0 FROM generate_series(1, 20000) u
    UNION ALL SELECT 'b' || n, 'u1', 'U', 'active', 'owner', 1, 0 FROM generate_series(1, 2000) n;
INSERT INTO user_roles (account_id, user_id, role_id, role_kind, team_id)
    SELECT 'a1', 'u' || u, 'manager', 'team', 't' || (u * 7 + t) % 1000 + 1
    FROM generate_series(1, 20000) u, generate_series(0, 4) t
    UNION ALL SELECT 'b7', 'u1', 'manager', 'team', 't1';
INSERT INTO api_keys (key_id, account_id, name, comment, metadata, account_permissions, team_permissions, state,
    token_hint, create_time, update_time, delete_time, rotate_time, revision_epoch, revision_number)
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n <= 60000 AND n % 8 > 0 THEN 'a1' WHEN n % 2 = 0 THEN 'c1' ELSE 'b' || n / 2 % 2000 + 1 END, 'k', '', '{}', '{x.y}', '{x.z}',
    CASE WHEN n <= 60000 AND n % 3 > 0 AND n > 3 THEN 'deleted' ELSE 'active' END, 'lk_', now(), now(),
    CASE WHEN n <= 60000 AND n % 3 > 0 AND n > 3 THEN now() - n * interval '1 minute' END, now(), 1, 0
    FROM generate_series(1, 80000) n;
INSERT INTO api_key_teams (account_id, key_id, team_id)
    SELECT account_id, key_id, 't1' FROM api_keys WHERE account_id <> 'a1' OR substr(key_id::text, 36) < '8'
    UNION SELECT account_id, key_id, 't' || (row_number() OVER ()) % 1000 + 1 FROM api_keys WHERE account_id = 'a1';
INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time)
    SELECT sha256(key_id::text::bytea), key_id, 'p1', now() FROM api_keys WHERE key_id <> '{KEY}';
INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time, end_time)
    SELECT sha256(n::text::bytea), '{KEY}', 'p1', now() - n * interval '1 minute', now() FROM generate_series(1, 5000) n;
INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) VALUES ({DIGEST}, '{KEY}', 'p1', now());
INSERT INTO token_usage (digest, key_id, last_used_time)
    SELECT digest, key_id, now() FROM api_key_secrets WHERE end_time IS NULL;
INSERT INTO events (number, epoch, event_id, time, kind, account_id, target_type, target_id, affected_key_ids,
    format_version, payload, hash)
    SELECT n, 1, gen_random_uuid(), now(), 'api_key.created',
    CASE WHEN n % 6 = 0 OR n % 10 = 1 THEN 'a1' WHEN n % 5 = 4 THEN 'b' || n / 5 % 2000 + 1 ELSE 'c1' END, 'api_key',
    CASE WHEN n % 6 = 0 THEN '{TARGET}' ELSE 'key_' || n END,
    CASE n % 10 WHEN 1 THEN '{{KEY}}'::uuid[] ELSE '{}' END, 1, '\x7b7d', decode(repeat('00', 32), 'hex')
    FROM generate_series(1, 60000) n;
INSERT INTO event_affected_keys (key_id, number)
    SELECT affected_key_ids[1], number FROM events WHERE affected_key_ids <> '{}';
INSERT INTO event_details (number, account_id, target_type, target_id, details)
    SELECT number, account_id, target_type, target_id, '[]' FROM events;
INSERT INTO operator_reads (key_id, account_id, noted_time)
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, 'b1', now() - n * interval '1 minute'
    FROM generate_series(1, 20000) n;
UPDATE log_head SET number = 60000, time = now();
INSERT INTO permissions (name, bit, description, team_scopable, implies, retired)
    SELECT 'p' || n, n, '', true, '{}', false FROM generate_series(0, 255) n;
SET session_replication_role = origin;
