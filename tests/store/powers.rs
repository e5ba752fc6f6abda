//! V6: what the role that a server connects as may do to the log, by whatever way.

use std::time::Duration;

use crate::database::{APP_ROLE, Database, execute, fresh_database, store};

/// The excess of a role that logs in, after some statements about it (`$R`, and `$D` for the database).
async fn excess(db: &Database, role: &str, sql: &str) -> String {
    let role = format!("{role}_{}", std::process::id());
    let (_, name) = db.url.rsplit_once('/').expect("a database");
    let sql = sql.replace("$R", &role).replace("$D", name);
    execute(&db.url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'; {sql}")).await;
    let (_, place) = db.url.rsplit_once('@').expect("a place");
    let powers = store(&format!("postgres://{role}:pw@{place}"), Duration::from_secs(5)).powers().await.unwrap();
    powers.excess.join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_role_that_only_appends_has_no_excess() {
    let db = fresh_database().await;
    assert_eq!(excess(&db, "powers_app", &format!("GRANT {APP_ROLE} TO $R")).await, "");
    assert_eq!(excess(&db, "powers_none", "").await, "", "to read nothing is no excess either");
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_role_that_is_or_can_become_a_superuser_or_an_owner_has_excess() {
    let db = fresh_database().await;
    let superuser = store(&db.url, Duration::from_secs(5)).powers().await.unwrap();
    assert_eq!(superuser.excess, ["is or can become a superuser"]);
    for (role, sql, word) in [
        ("powers_super", "ALTER ROLE $R SUPERUSER", "superuser"),
        ("powers_set", "ALTER ROLE $R NOINHERIT; GRANT postgres TO $R", "superuser"),
        // Its sessions begin as another role, and can go back.
        ("powers_reset", "CREATE ROLE $R_low; ALTER ROLE $R SUPERUSER; ALTER ROLE $R SET role = $R_low", "superuser"),
        ("powers_owner", "ALTER TABLE events OWNER TO $R", "owns"),
        (
            "powers_member",
            "CREATE ROLE $R_own; ALTER TABLE events OWNER TO $R_own; ALTER ROLE $R NOINHERIT; GRANT $R_own TO $R",
            "owns",
        ),
        ("powers_schema", "ALTER TABLE events OWNER TO postgres; ALTER SCHEMA public OWNER TO $R", "owns"),
        ("powers_database", "ALTER SCHEMA public OWNER TO postgres; ALTER DATABASE $D OWNER TO $R", "owns"),
    ] {
        let excess = excess(&db, role, sql).await;
        assert!(excess.contains(word), "{role}: {excess}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_role_that_may_change_or_delete_events_has_excess() {
    let db = fresh_database().await;
    for (role, sql, word) in [
        ("powers_update", "GRANT UPDATE ON events TO $R", "UPDATE"),
        ("powers_column", "GRANT UPDATE (payload) ON events TO $R", "UPDATE"),
        ("powers_delete", "GRANT DELETE ON events TO $R", "DELETE"),
        ("powers_truncate", "GRANT TRUNCATE ON events TO $R", "TRUNCATE"),
        ("powers_all_data", "GRANT pg_write_all_data TO $R", "UPDATE"),
        (
            "powers_through",
            "CREATE ROLE $R_del; GRANT DELETE ON events TO $R_del; ALTER ROLE $R NOINHERIT; GRANT $R_del TO $R",
            "DELETE",
        ),
        ("powers_trigger", "GRANT TRIGGER ON events TO $R", "triggers"),
        ("powers_files", "GRANT pg_write_server_files TO $R", "more privileges"),
    ] {
        let excess = excess(&db, role, sql).await;
        assert!(excess.contains(word), "{role}: {excess}");
    }
    // What everybody may, this role may too.
    assert_eq!(excess(&db, "powers_before", "").await, "");
    let after = excess(&db, "powers_public", "GRANT DELETE ON events TO PUBLIC").await;
    assert!(after.contains("DELETE"), "{after}");
}
