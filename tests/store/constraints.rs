//! The schema refuses impossible rows even if the code is wrong.

use crate::{
    database::{APP_ROLE, Database, connect, execute, fresh_database, refused},
    fixtures::*,
};
use diesel_async::SimpleAsyncConnection;

const ROLE: &str = "SET ROLE latchkey_test_app; ";

async fn with_key() -> Database {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2"]).await;
    put_account(&db.store, "other", &["o1"]).await;
    put_key(&db.store, &api_key(1, "acme", grants(&["a"], &["t1"], &["b"])), 1).await;
    put_key(&db.store, &api_key(2, "acme", grants(&["a"], &[], &[])), 2).await;
    db
}

async fn all_refused(db: &Database, statements: &[&str], why: &str) {
    for sql in statements {
        let message = refused(&db.url, sql).await;
        assert!(message.contains(why), "{sql}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_team_scope_names_teams_and_permissions_or_there_is_none() {
    let db = with_key().await;
    all_refused(
        &db,
        &[
            "UPDATE api_keys SET team_permissions = '{}' WHERE key_id = '00000000-0000-0000-0000-000000000001'",
            "DELETE FROM api_key_teams",
            "UPDATE api_keys SET team_permissions = '{b}' WHERE key_id = '00000000-0000-0000-0000-000000000002'",
            "INSERT INTO api_key_teams VALUES ('acme', '00000000-0000-0000-0000-000000000002', 't1')",
        ],
        "K2",
    )
    .await;
    // Both together are an edit.
    execute(&db.url, "BEGIN; DELETE FROM api_key_teams; UPDATE api_keys SET team_permissions = '{}'; COMMIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_key_names_no_team_of_another_account() {
    let db = with_key().await;
    all_refused(
        &db,
        &[
            "INSERT INTO api_key_teams VALUES ('acme', '00000000-0000-0000-0000-000000000001', 'o1')",
            "INSERT INTO api_key_teams VALUES ('other', '00000000-0000-0000-0000-000000000001', 'o1')",
            "UPDATE api_keys SET account_id = 'other' WHERE key_id = '00000000-0000-0000-0000-000000000001'",
            "DELETE FROM teams WHERE team_id = 't1'",
        ],
        "foreign key",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_a_key_has_one_current_token() {
    let db = with_key().await;
    let second = "INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) \
        SELECT decode(repeat('07', 32), 'hex'), key_id, 'p1', now() FROM api_keys LIMIT 1";
    all_refused(&db, &[second], "api_key_secrets_one_current").await;
    all_refused(&db, &["UPDATE api_key_secrets SET digest = '\\x00'"], "check").await;
    all_refused(&db, &["UPDATE api_key_secrets SET pepper_id = 'unknown'"], "foreign key").await;
    all_refused(&db, &["UPDATE api_key_secrets SET presented_time = now()"], "check").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_system_is_apart() {
    let db = with_key().await;
    all_refused(
        &db,
        &[
            "UPDATE api_keys SET account_permissions = '{system.verify}'",
            "UPDATE api_keys SET team_permissions = '{system.verify}' WHERE team_permissions <> '{}'",
            "UPDATE accounts SET state = 'suspended' WHERE account_id = 'system'",
            "UPDATE accounts SET state = 'deleted' WHERE account_id = 'system'",
            "INSERT INTO teams VALUES ('system', 't', 'T', 1, 0)",
            "INSERT INTO roles VALUES ('system', 'r', 'R', 'base', '{}', false, 1, 0)",
            "INSERT INTO users VALUES ('system', 'u', 'U', 'active', 'owner', 'base', 1, 0)",
            "INSERT INTO permissions VALUES ('system.other', 1, '', false, '{}', false)",
            "INSERT INTO permissions VALUES ('system', 1, '', false, '{}', false)",
        ],
        "check",
    )
    .await;
    put_key(&db.store, &api_key(3, "system", grants(&["system.operate"], &[], &[])), 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_user_has_one_base_role_and_others_of_their_kinds() {
    let db = with_key().await;
    execute(&db.url, "INSERT INTO users VALUES ('acme', 'u', 'U', 'active', 'owner', 'base', 1, 0)").await;
    all_refused(
        &db,
        &[
            "UPDATE users SET base_role_id = 'lead'",
            "UPDATE users SET base_role_id = 'nowhere'",
            "INSERT INTO user_roles VALUES ('acme', 'u', 'lead', 'custom', NULL)",
            "INSERT INTO user_roles VALUES ('acme', 'u', 'lead', 'team', 'o1')",
            "UPDATE roles SET kind = 'team' WHERE role_id = 'owner' AND account_id = 'acme'",
            "DELETE FROM roles WHERE role_id = 'owner' AND account_id = 'acme'",
        ],
        "foreign key",
    )
    .await;
    all_refused(
        &db,
        &[
            "UPDATE users SET base_role_kind = 'custom'",
            "INSERT INTO user_roles VALUES ('acme', 'u', 'lead', 'team', NULL)",
            "INSERT INTO user_roles VALUES ('acme', 'u', 'extra', 'custom', 't1')",
            "UPDATE roles SET all_permissions = true WHERE role_id = 'lead'",
            "UPDATE roles SET all_permissions = true, permissions = '{a}' WHERE role_id = 'owner'",
        ],
        "check",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_states_and_heads_are_what_they_can_be() {
    let db = with_key().await;
    all_refused(
        &db,
        &[
            "UPDATE api_keys SET state = 'deleted'",
            "UPDATE api_keys SET delete_time = now()",
            "UPDATE api_keys SET state = 'gone'",
            "UPDATE api_keys SET creator_user_id = 'u'",
            "UPDATE api_keys SET metadata = '[]'",
            "UPDATE api_keys SET account_permissions = '{NULL}'",
            "UPDATE accounts SET api_key_count = -1",
            "INSERT INTO log_head (singleton, epoch, number, time, hash) VALUES (false, 1, 0, now(), '\\x00')",
            "UPDATE events SET hash = '\\x00'",
            "UPDATE events SET number = 0 WHERE number = 1",
        ],
        "check",
    )
    .await;
    let second_head = "INSERT INTO log_head (epoch, number, time, hash) SELECT epoch, number, time, hash FROM log_head";
    all_refused(&db, &[second_head, "INSERT INTO catalogue_head VALUES (true, 1, 1)"], "unique").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_the_application_s_role_cannot_change_history() {
    let db = with_key().await;
    for sql in [
        "UPDATE events SET kind = 'x'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DELETE FROM accounts",
        "DELETE FROM permissions",
        "DELETE FROM log_head",
        "INSERT INTO log_head VALUES (true, 1, 1, now(), '\\x00')",
        "UPDATE peppers SET check_value = check_value",
        "DROP TABLE events",
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('9')",
    ] {
        let message = refused(&db.url, &format!("{ROLE}{sql}")).await;
        assert!(message.contains("permission denied") || message.contains("must be owner"), "{sql}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_only_a_deleted_key_can_be_erased() {
    let db = with_key().await;
    let clear = "DELETE FROM api_key_secrets; DELETE FROM api_key_teams; UPDATE api_keys SET team_permissions = '{}'";
    let erase = "DELETE FROM api_keys WHERE state <> 'deleted'";
    all_refused(&db, &[&format!("{ROLE}BEGIN; {clear}; {erase}"), &format!("BEGIN; {clear}; {erase}")], "K6").await;
    execute(&db.url, &format!("BEGIN; {clear}; UPDATE api_keys SET state = 'deleted', delete_time = now(); COMMIT"))
        .await;
    execute(&db.url, "DELETE FROM api_keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_role_can_do_all_that_the_store_does() {
    let db = with_key().await;
    let mut admin = connect(&db.url).await;
    // So that the store's own connections come with that role.
    let name = db.url.rsplit_once('/').unwrap().1;
    admin.batch_execute(&format!("ALTER ROLE postgres IN DATABASE {name} SET role = '{APP_ROLE}'")).await.unwrap();
    all_refused(&db, &["DELETE FROM events"], "permission denied").await;
    let store = crate::database::store(&db.url, std::time::Duration::from_secs(5));
    put_account(&store, "third", &["t1"]).await;
    let key = api_key(5, "third", grants(&["a"], &["t1"], &["b"]));
    put_key(&store, &key, 5).await;
    update_key(&store, &key, &with_grants(&key, grants(&["a"], &[], &[]))).await;
    let mut tx = begin(&store, "third").await;
    tx.put_users(&account_id("third"), &[user("u", "owner", &["extra"], &[("t1", "lead")])]).await.unwrap();
    tx.delete_account(&account_id("third"), THEN).await.unwrap();
    tx.put_catalogue(&[], &[]).await.unwrap();
    tx.commit().await.unwrap();
    let store = &store as &dyn latchkey::app::ports::Store;
    store.forget_ended_tokens(latchkey::domain::time::Timestamp::MAX, 5).await.unwrap();
    let marked = latchkey::app::ports::UsageMark { digest: digest(1, 0), key_id: key_id(1), last_used_time: THEN };
    store.record_usage(&[marked]).await.unwrap();
    store.snapshot(latchkey::app::ports::Lane::Reads).await.unwrap().head().await.unwrap();
}
