//! The tables that statements name through Diesel's query builder; `migrations/` makes them, and all others are named
//! in SQL text alone.

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

diesel::joinable!(users -> accounts (account_id));

diesel::allow_tables_to_appear_in_same_query!(accounts, users);
