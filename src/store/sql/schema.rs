//! The tables as Diesel knows them; `migrations/` makes them.

diesel::table! {
    permissions (name) {
        name -> Text,
        bit -> SmallInt,
        description -> Text,
        team_scopable -> Bool,
        implies -> Array<Text>,
        retired -> Bool,
    }
}

diesel::table! {
    catalogue_head (singleton) {
        singleton -> Bool,
        revision_epoch -> BigInt,
        revision_number -> BigInt,
    }
}

diesel::table! {
    default_roles (role_id) {
        role_id -> Text,
        display_name -> Text,
        kind -> Text,
        permissions -> Array<Text>,
        all_permissions -> Bool,
    }
}

diesel::table! {
    accounts (account_id) {
        account_id -> Text,
        display_name -> Text,
        state -> Text,
        api_key_count -> Integer,
        create_time -> Timestamptz,
        revision_epoch -> BigInt,
        revision_number -> BigInt,
        deleted_api_key_count -> Integer,
        delete_time -> Nullable<Timestamptz>,
        purging_team_ids -> Array<Text>,
        purging -> Bool,
    }
}

diesel::table! {
    teams (account_id, team_id) {
        account_id -> Text,
        team_id -> Text,
        display_name -> Text,
        revision_epoch -> BigInt,
        revision_number -> BigInt,
    }
}

diesel::table! {
    roles (account_id, role_id) {
        account_id -> Text,
        role_id -> Text,
        display_name -> Text,
        kind -> Text,
        permissions -> Array<Text>,
        all_permissions -> Bool,
        revision_epoch -> BigInt,
        revision_number -> BigInt,
    }
}

diesel::table! {
    users (account_id, user_id) {
        account_id -> Text,
        user_id -> Text,
        display_name -> Text,
        state -> Text,
        base_role_id -> Text,
        base_role_kind -> Text,
        revision_epoch -> BigInt,
        revision_number -> BigInt,
    }
}

diesel::table! {
    // The table has no primary key, only partial unique indexes; Diesel wants one named.
    user_roles (account_id, user_id, role_id) {
        account_id -> Text,
        user_id -> Text,
        role_id -> Text,
        role_kind -> Text,
        team_id -> Nullable<Text>,
    }
}

diesel::table! {
    peppers (pepper_id) {
        pepper_id -> Text,
        check_value -> Bytea,
        in_use -> Bool,
    }
}

diesel::table! {
    api_keys (key_id) {
        key_id -> Uuid,
        account_id -> Text,
        name -> Text,
        comment -> Text,
        metadata -> Jsonb,
        account_permissions -> Array<Text>,
        team_permissions -> Array<Text>,
        expire_time -> Nullable<Timestamptz>,
        state -> Text,
        token_hint -> Text,
        creator_key_id -> Nullable<Uuid>,
        creator_account_id -> Nullable<Text>,
        creator_user_id -> Nullable<Text>,
        create_time -> Timestamptz,
        update_time -> Timestamptz,
        delete_time -> Nullable<Timestamptz>,
        rotate_time -> Timestamptz,
        revision_epoch -> BigInt,
        revision_number -> BigInt,
        ended_tokens_used_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    api_key_teams (key_id, team_id) {
        account_id -> Text,
        key_id -> Uuid,
        team_id -> Text,
    }
}

diesel::table! {
    api_key_secrets (digest) {
        digest -> Bytea,
        key_id -> Uuid,
        pepper_id -> Text,
        create_time -> Timestamptz,
        end_time -> Nullable<Timestamptz>,
        presented_time -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    token_usage (digest) {
        digest -> Bytea,
        key_id -> Uuid,
        last_used_time -> Timestamptz,
    }
}

diesel::table! {
    events (number) {
        number -> BigInt,
        epoch -> BigInt,
        event_id -> Uuid,
        time -> Timestamptz,
        kind -> Text,
        account_id -> Nullable<Text>,
        target_type -> Text,
        target_id -> Text,
        affected_key_ids -> Array<Uuid>,
        format_version -> SmallInt,
        payload -> Bytea,
        hash -> Bytea,
    }
}

diesel::table! {
    log_head (singleton) {
        singleton -> Bool,
        epoch -> BigInt,
        number -> BigInt,
        time -> Timestamptz,
        hash -> Bytea,
    }
}

diesel::joinable!(teams -> accounts (account_id));
diesel::joinable!(roles -> accounts (account_id));
diesel::joinable!(users -> accounts (account_id));
diesel::joinable!(api_keys -> accounts (account_id));
diesel::joinable!(api_key_secrets -> api_keys (key_id));
diesel::joinable!(api_key_secrets -> peppers (pepper_id));

diesel::allow_tables_to_appear_in_same_query!(
    accounts,
    api_key_secrets,
    api_key_teams,
    api_keys,
    peppers,
    roles,
    teams,
    token_usage,
    user_roles,
    users,
);
