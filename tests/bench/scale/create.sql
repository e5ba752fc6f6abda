-- What a create runs for a key whose caller holds `system.operate`, by the texts in src/store and in its order, one
-- statement after the other as pgbench runs a script: what the service saves by sending some of them together counts
-- for it. The event's bytes are those of a real create's event; only their hash is another function's.
\set number :number + 1
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
    set_config('lock_timeout', '1500ms', true), set_config('statement_timeout', '2250ms', true),
    set_config('idle_in_transaction_session_timeout', '6000ms', true);
SELECT FROM catalogue_head FOR SHARE;
SELECT FROM accounts WHERE account_id = 'a0' FOR NO KEY UPDATE;
SELECT FROM accounts WHERE account_id = 'system' FOR SHARE;
-- Who calls, and whether it may.
SELECT h.epoch AS log_epoch, c.revision_epoch, c.revision_number
    FROM (SELECT * FROM log_head LIMIT 1) h CROSS JOIN (SELECT * FROM catalogue_head LIMIT 1) c;
SELECT GREATEST(time, clock_timestamp()) AS now FROM log_head LIMIT 1;
SELECT h.epoch, h.number, c.revision_epoch, c.revision_number,
    s.digest, s.end_time, k.key_id, k.account_id, k.account_permissions, k.team_permissions, k.expire_time,
    k.state, a.state AS account_state,
    ARRAY(SELECT t.team_id FROM api_key_teams t WHERE t.key_id = k.key_id ORDER BY t.team_id) AS team_ids,
    EXISTS (SELECT FROM peppers p WHERE p.in_use AND p.pepper_id <> ALL('{}'::text[])) AS lacks_pepper,
    GREATEST(h.time, now()) AS time, current_setting('in_hot_standby') = 'on' AS standby
    FROM (SELECT * FROM log_head LIMIT 1) h CROSS JOIN (SELECT * FROM catalogue_head LIMIT 1) c
    LEFT JOIN (api_key_secrets s
    JOIN api_keys k ON k.key_id = s.key_id JOIN accounts a ON a.account_id = k.account_id)
    ON s.digest IN (:caller::bytea);
-- The account and its quota, the teams, the pepper.
SELECT account_id, display_name, state, api_key_count, create_time, revision_epoch, revision_number
    FROM accounts WHERE account_id = 'a0';
SELECT n AS team_id FROM unnest(ARRAY['team-0', 'team-1']) n
    WHERE NOT EXISTS (SELECT FROM teams t WHERE t.account_id = 'a0' AND t.team_id = n);
SELECT p.pepper_id FROM peppers p JOIN (SELECT c.pepper_id
    FROM unnest(ARRAY['test']) WITH ORDINALITY AS c (pepper_id, place)
    WHERE NOT EXISTS (SELECT FROM replicas r WHERE c.pepper_id <> ALL(r.pepper_ids))
    ORDER BY c.place LIMIT 1) chosen ON chosen.pepper_id = p.pepper_id FOR KEY SHARE OF p;
WITH used AS (UPDATE peppers SET in_use = true WHERE pepper_id = 'test' AND NOT in_use)
    SELECT 'test' AS pepper_id WHERE NOT EXISTS (SELECT FROM replicas r WHERE 'test' <> ALL(r.pepper_ids));
-- The key, its teams, its token.
WITH k AS (INSERT INTO api_keys (key_id, account_id, name, comment, metadata,
    account_permissions, team_permissions, expire_time, state, token_hint, creator_key_id, creator_account_id,
    creator_user_id, create_time, update_time, rotate_time, revision_epoch, revision_number)
    VALUES (('01980000-0000-7000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid, 'a0', 'created', '', '{}',
    ARRAY['incidents.view', 'incidents.create', 'settings.view', 'workflows.view'],
    ARRAY['catalog.view', 'schedules.view', 'on_call.view', 'heartbeats.ping'], NULL, 'active', 'lk_…abcd',
    :caller_key::uuid, 'system', NULL, now(), now(), now(), 0, 0)),
    t AS (INSERT INTO api_key_teams (account_id, key_id, team_id) SELECT 'a0',
    ('01980000-0000-7000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid, unnest(ARRAY['team-0', 'team-1'])),
    s AS (INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) VALUES (sha256(int8send(:number::bigint)),
    ('01980000-0000-7000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid, 'test', now()))
    UPDATE accounts SET api_key_count = api_key_count + 1 WHERE account_id = 'a0';
-- The head, the event, the key's stamp.
UPDATE log_head h SET number = h.number + 1, time = GREATEST(h.time, clock_timestamp(), now())
    RETURNING h.epoch, h.number, h.time, h.hash \gset head_
WITH e AS (INSERT INTO events (number, epoch, event_id, time, kind, account_id,
    target_type, target_id, affected_key_ids, format_version, payload, hash)
    SELECT n.number, :head_epoch::bigint, n.event_id, n.time, n.kind, n.account_id, n.target_type, n.target_id,
    n.affected::uuid[], 1::smallint, n.payload, n.hash
    FROM unnest(ARRAY[:head_number::bigint],
    ARRAY[('01990000-0000-7000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid],
    ARRAY[:head_time::timestamptz], ARRAY['API_KEY_CREATED'], ARRAY['a0'], ARRAY['api_key'],
    ARRAY['key_' || lpad(:number::text, 26, '0')], ARRAY['{}'], ARRAY[:payload::bytea],
    ARRAY[sha256(:head_hash::bytea || :payload::bytea)]) AS n
    (number, event_id, time, kind, account_id, target_type, target_id, affected, payload, hash)),
    h AS (UPDATE log_head SET hash = sha256(:head_hash::bytea || :payload::bytea))
    SELECT pg_notify('latchkey_events', '') WHERE true;
UPDATE api_keys SET revision_epoch = :head_epoch::bigint, revision_number = :head_number::bigint
    WHERE key_id = ('01980000-0000-7000-8000-' || lpad(to_hex(:number::bigint), 12, '0'))::uuid AND account_id = 'a0';
COMMIT;
