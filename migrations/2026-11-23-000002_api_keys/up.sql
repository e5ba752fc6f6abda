-- Keys, their teams, the digests of their tokens, and when they were last used.

CREATE TABLE peppers (
    pepper_id text COLLATE "C" PRIMARY KEY CHECK (pepper_id ~ '^[a-z0-9_-]{1,32}$'),
    -- Tells whether a server holds the same secret under this id; says nothing about the secret.
    check_value bytea NOT NULL CHECK (octet_length(check_value) = 32)
);

CREATE TABLE api_keys (
    key_id uuid PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    comment text NOT NULL CHECK (char_length(comment) <= 5000),
    metadata jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    -- Names as granted (P1); closures are taken at evaluation.
    account_permissions text[] NOT NULL CHECK (array_position(account_permissions, NULL) IS NULL),
    team_permissions text[] NOT NULL CHECK (array_position(team_permissions, NULL) IS NULL),
    expire_time timestamptz,
    state text NOT NULL CHECK (state IN ('active', 'disabled', 'deleted')),
    token_hint text NOT NULL,
    creator_key_id uuid,
    creator_account_id text COLLATE "C",
    creator_user_id text COLLATE "C",
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    delete_time timestamptz,
    rotate_time timestamptz NOT NULL,
    revision_epoch bigint NOT NULL,
    revision_number bigint NOT NULL,
    UNIQUE (account_id, key_id),
    CHECK ((state = 'deleted') = (delete_time IS NOT NULL)),
    CHECK ((creator_key_id IS NULL) = (creator_account_id IS NULL)),
    CHECK (creator_user_id IS NULL OR creator_key_id IS NOT NULL),
    -- system. permissions are held only by keys of account system (A4), and never on teams (P5).
    CHECK (account_id = 'system' OR NOT account_permissions && ARRAY['system.verify', 'system.directory',
        'system.impersonate', 'system.events', 'system.report_leaks', 'system.operate']),
    CHECK (NOT team_permissions && ARRAY['system.verify', 'system.directory',
        'system.impersonate', 'system.events', 'system.report_leaks', 'system.operate'])
);
CREATE INDEX api_keys_not_deleted ON api_keys (account_id, key_id) WHERE state <> 'deleted';
-- For forgetting the tokens of keys deleted long ago (T3).
CREATE INDEX api_keys_deleted ON api_keys (delete_time) WHERE delete_time IS NOT NULL;

-- The composite keys make a team of another account impossible.
CREATE TABLE api_key_teams (
    account_id text COLLATE "C" NOT NULL,
    key_id uuid NOT NULL,
    team_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (key_id, team_id),
    FOREIGN KEY (account_id, key_id) REFERENCES api_keys (account_id, key_id),
    FOREIGN KEY (account_id, team_id) REFERENCES teams
);
CREATE INDEX api_key_teams_by_team ON api_key_teams (account_id, team_id, key_id);

CREATE TABLE api_key_secrets (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    key_id uuid NOT NULL REFERENCES api_keys,
    pepper_id text COLLATE "C" NOT NULL REFERENCES peppers,
    create_time timestamptz NOT NULL,
    -- When a newer token replaced it and its grace is over; NULL for the current one (K8).
    end_time timestamptz,
    -- When its use after its end was last recorded: at most one event an hour (K8).
    presented_time timestamptz,
    CHECK (presented_time IS NULL OR end_time IS NOT NULL)
);
CREATE UNIQUE INDEX api_key_secrets_one_current ON api_key_secrets (key_id) WHERE end_time IS NULL;
CREATE INDEX api_key_secrets_by_key ON api_key_secrets (key_id, create_time);
-- For forgetting tokens that ended long ago (T3).
CREATE INDEX api_key_secrets_ended ON api_key_secrets (end_time) WHERE end_time IS NOT NULL;

-- Written in sorted batches, apart from every row that authority locks (K9). No foreign key on purpose.
CREATE TABLE token_usage (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    key_id uuid NOT NULL,
    last_used_time timestamptz NOT NULL
);
CREATE INDEX token_usage_by_key ON token_usage (key_id);

-- K2: a team scope has teams and permissions, or there is none. The lists live in two tables, so
-- this is checked when the transaction ends.
CREATE FUNCTION api_keys_check_team_scope() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    checked uuid;
    bad boolean;
BEGIN
    IF TG_OP = 'DELETE' THEN checked := OLD.key_id; ELSE checked := NEW.key_id; END IF;
    SELECT (k.team_permissions = '{}') = EXISTS (SELECT FROM api_key_teams t WHERE t.key_id = k.key_id)
      INTO bad FROM api_keys k WHERE k.key_id = checked;
    IF bad THEN
        RAISE EXCEPTION 'a team scope names teams and permissions, or there is none (K2)'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'api_keys_team_scope';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER api_keys_team_scope AFTER INSERT OR UPDATE OF team_permissions ON api_keys
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION api_keys_check_team_scope();
CREATE CONSTRAINT TRIGGER api_key_teams_team_scope AFTER INSERT OR DELETE ON api_key_teams
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION api_keys_check_team_scope();
