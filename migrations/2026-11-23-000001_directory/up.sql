-- The catalogue, accounts, teams, roles and users. Ids compare by bytes (COLLATE "C"), as the code does.

CREATE TABLE permissions (
    name text COLLATE "C" PRIMARY KEY
        CHECK (octet_length(name) <= 64 AND name ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$' AND name !~ '^system(\.|$)'),
    bit smallint NOT NULL UNIQUE CHECK (bit BETWEEN 0 AND 255),
    description text NOT NULL CHECK (char_length(description) <= 1000),
    team_scopable boolean NOT NULL,
    implies text[] NOT NULL CHECK (array_position(implies, NULL) IS NULL),
    retired boolean NOT NULL
);

-- One row: what every judge locks against a change of the catalogue, and its revision.
CREATE TABLE catalogue_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    revision_epoch bigint NOT NULL,
    revision_number bigint NOT NULL
);
INSERT INTO catalogue_head (revision_epoch, revision_number) VALUES (1, 0);

-- The roles that a new account starts with.
CREATE TABLE default_roles (
    role_id text COLLATE "C" PRIMARY KEY CHECK (role_id ~ '^[A-Za-z0-9_.:-]{1,64}$'),
    display_name text NOT NULL CHECK (char_length(display_name) <= 200),
    kind text NOT NULL CHECK (kind IN ('base', 'custom', 'team')),
    permissions text[] NOT NULL CHECK (array_position(permissions, NULL) IS NULL),
    all_permissions boolean NOT NULL,
    CHECK (NOT all_permissions OR (permissions = '{}' AND kind <> 'team'))
);

CREATE TABLE accounts (
    account_id text COLLATE "C" PRIMARY KEY CHECK (account_id ~ '^[A-Za-z0-9_.:-]{1,64}$'),
    display_name text NOT NULL CHECK (char_length(display_name) <= 200),
    -- A deleted account stays, so that its id is never used again (A5).
    state text NOT NULL CHECK (state IN ('active', 'suspended', 'deleted')),
    api_key_count integer NOT NULL DEFAULT 0 CHECK (api_key_count >= 0),
    create_time timestamptz NOT NULL,
    revision_epoch bigint NOT NULL,
    revision_number bigint NOT NULL,
    -- The reserved account cannot be suspended or deleted (A4).
    CHECK (account_id <> 'system' OR state = 'active')
);
INSERT INTO accounts (account_id, display_name, state, create_time, revision_epoch, revision_number)
VALUES ('system', 'Latchkey''s operators and services', 'active', now(), 1, 0);

CREATE TABLE teams (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts CHECK (account_id <> 'system'),
    team_id text COLLATE "C" NOT NULL CHECK (team_id ~ '^[A-Za-z0-9_.:-]{1,64}$'),
    display_name text NOT NULL CHECK (char_length(display_name) <= 200),
    revision_epoch bigint NOT NULL,
    revision_number bigint NOT NULL,
    PRIMARY KEY (account_id, team_id)
);

CREATE TABLE roles (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts CHECK (account_id <> 'system'),
    role_id text COLLATE "C" NOT NULL CHECK (role_id ~ '^[A-Za-z0-9_.:-]{1,64}$'),
    display_name text NOT NULL CHECK (char_length(display_name) <= 200),
    kind text NOT NULL CHECK (kind IN ('base', 'custom', 'team')),
    permissions text[] NOT NULL CHECK (array_position(permissions, NULL) IS NULL),
    all_permissions boolean NOT NULL,
    revision_epoch bigint NOT NULL,
    revision_number bigint NOT NULL,
    PRIMARY KEY (account_id, role_id),
    -- What a user's reference to a role of one kind points at.
    UNIQUE (account_id, role_id, kind),
    CHECK (NOT all_permissions OR (permissions = '{}' AND kind <> 'team'))
);

CREATE TABLE users (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts CHECK (account_id <> 'system'),
    user_id text COLLATE "C" NOT NULL CHECK (user_id ~ '^[A-Za-z0-9_.:-]{1,64}$'),
    display_name text NOT NULL CHECK (char_length(display_name) <= 200),
    state text NOT NULL CHECK (state IN ('active', 'deactivated')),
    base_role_id text COLLATE "C" NOT NULL,
    base_role_kind text NOT NULL DEFAULT 'base' CHECK (base_role_kind = 'base'),
    revision_epoch bigint NOT NULL,
    revision_number bigint NOT NULL,
    PRIMARY KEY (account_id, user_id),
    -- Exactly one base role, and of that kind (A2). No action: a role in use cannot be deleted (A5).
    FOREIGN KEY (account_id, base_role_id, base_role_kind) REFERENCES roles (account_id, role_id, kind)
);
CREATE INDEX users_by_base_role ON users (account_id, base_role_id);

-- Custom roles (no team) and team roles (with one).
CREATE TABLE user_roles (
    account_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    role_id text COLLATE "C" NOT NULL,
    role_kind text NOT NULL CHECK (role_kind IN ('custom', 'team')),
    team_id text COLLATE "C",
    CHECK ((role_kind = 'team') = (team_id IS NOT NULL)),
    FOREIGN KEY (account_id, user_id) REFERENCES users ON DELETE CASCADE,
    FOREIGN KEY (account_id, role_id, role_kind) REFERENCES roles (account_id, role_id, kind),
    FOREIGN KEY (account_id, team_id) REFERENCES teams ON DELETE CASCADE
);
CREATE UNIQUE INDEX user_roles_custom ON user_roles (account_id, user_id, role_id) WHERE team_id IS NULL;
CREATE UNIQUE INDEX user_roles_team ON user_roles (account_id, user_id, role_id, team_id) WHERE team_id IS NOT NULL;
CREATE INDEX user_roles_by_role ON user_roles (account_id, role_id);
CREATE INDEX user_roles_by_team ON user_roles (account_id, team_id) WHERE team_id IS NOT NULL;
