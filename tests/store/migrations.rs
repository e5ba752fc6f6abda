//! Migrations: every one up, down and up again; the privileges; what serve learns of the schema.

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::MigrationHarness;
use latchkey::{
    domain::token::Pepper,
    store::{
        migrate::{self, MIGRATIONS, MigrateError, SchemaStatus},
        replica::peppers::PepperError,
    },
};

use crate::{
    database::{APP_ROLE, connect, empty_database, execute, fresh_database},
    fixtures::*,
};

const CATALOG: &str = "SELECT concat_ws(' | ', \
    (SELECT string_agg(format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default), '; ' \
     ORDER BY table_name, ordinal_position) FROM information_schema.columns WHERE table_schema = 'public'), \
    (SELECT string_agg(conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid), '; ' \
     ORDER BY conrelid::regclass::text, conname) FROM pg_constraint WHERE connamespace = 'public'::regnamespace), \
    (SELECT string_agg(indexdef, '; ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'public'), \
    (SELECT string_agg(pg_get_triggerdef(oid), '; ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal), \
    (SELECT string_agg(proname || prosrc, '; ' ORDER BY proname) FROM pg_proc \
     WHERE pronamespace = 'public'::regnamespace)) AS text";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    text: String,
}

async fn catalog(conn: &mut AsyncPgConnection) -> String {
    sql_query(CATALOG).get_result::<Row>(conn).await.unwrap().text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_up_down_and_up_again_leaves_the_same_catalog() {
    let url = empty_database().await;
    let mut conn = connect(&url).await;
    let mut known = vec![];
    // The harness makes its own table first.
    let mut harness = AsyncMigrationHarness::new(conn);
    let count = harness.pending_migrations(MIGRATIONS).unwrap().len();
    conn = harness.into_inner();
    known.push(catalog(&mut conn).await);
    for step in 0..count {
        let mut harness = AsyncMigrationHarness::new(conn);
        harness.run_next_migration(MIGRATIONS).unwrap();
        conn = harness.into_inner();
        let up = catalog(&mut conn).await;
        let mut harness = AsyncMigrationHarness::new(conn);
        harness.revert_last_migration(MIGRATIONS).unwrap();
        conn = harness.into_inner();
        assert_eq!(catalog(&mut conn).await, known[step], "down of migration {step}");
        let mut harness = AsyncMigrationHarness::new(conn);
        harness.run_next_migration(MIGRATIONS).unwrap();
        conn = harness.into_inner();
        assert_eq!(catalog(&mut conn).await, up, "up again of migration {step}");
        assert_ne!(up, known[step]);
        known.push(up);
    }
    let mut harness = AsyncMigrationHarness::new(conn);
    harness.revert_all_migrations(MIGRATIONS).unwrap();
    assert_eq!(catalog(&mut harness.into_inner()).await, known[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_tells_its_progress_and_is_repeatable_by_several_at_once() {
    let url = empty_database().await;
    let mut names = Vec::new();
    let run = migrate::migrate(&url, APP_ROLE, |name| names.push(name.to_owned())).await.unwrap();
    assert_eq!(run, names);
    assert!(names.len() >= 3 && names[0].ends_with("_directory"), "{names:?}");
    assert!(migrate::migrate(&url, APP_ROLE, |_| ()).await.unwrap().is_empty());

    let url = empty_database().await;
    let racing: Vec<_> = (0..3)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { migrate::migrate(&url, APP_ROLE, |_| ()).await.unwrap().len() })
        })
        .collect();
    let mut total = 0;
    for racer in racing {
        total += racer.await.unwrap();
    }
    assert_eq!(total, names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_detects_a_schema_that_is_behind_or_unknown() {
    let url = empty_database().await;
    let store = crate::database::store(&url, std::time::Duration::from_secs(5));
    assert!(matches!(store.schema_status().await.unwrap(), SchemaStatus::Behind(names) if names.len() >= 3));
    migrate::migrate(&url, APP_ROLE, |_| ()).await.unwrap();
    assert_eq!(store.schema_status().await.unwrap(), SchemaStatus::Current);
    execute(&url, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')").await;
    assert_eq!(store.schema_status().await.unwrap(), SchemaStatus::Unknown(vec!["99991231000000".into()]));
    assert!(matches!(migrate::migrate(&url, APP_ROLE, |_| ()).await, Err(MigrateError::Unknown(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_be_made_is_an_error_that_says_what_to_run() {
    // The template makes the application's role, which this test's owner may not.
    fresh_database().await;
    let url = empty_database().await;
    let (owner, name) = (format!("latchkey_owner_{}", std::process::id()), url.rsplit_once('/').unwrap().1.to_owned());
    execute(&url, &format!("CREATE ROLE {owner} LOGIN PASSWORD 'pw'; ALTER DATABASE {name} OWNER TO {owner}")).await;
    execute(&url, &format!("ALTER SCHEMA public OWNER TO {owner}")).await;
    let (_, place) = url.rsplit_once('@').unwrap();
    let owned = format!("postgres://{owner}:pw@{place}");
    let error = migrate::migrate(&owned, "latchkey_missing", |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("CREATE ROLE \"latchkey_missing\" NOLOGIN"), "{error}");
    // Once it is there, the same command goes on.
    migrate::migrate(&owned, APP_ROLE, |_| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_a_pepper_of_a_known_id_must_be_the_same_secret() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    put_key(&db.store, &api_key(1, "acme", grants(&[], &[], &[])), 1).await;
    let pepper = |id: &str, byte| Pepper::new(id.into(), &[byte; 32].into());
    db.store.register_peppers(&[pepper("p2", 2), pepper("p3", 3)]).await.unwrap();
    db.store.register_peppers(&[pepper("p2", 2)]).await.unwrap();
    let error = db.store.register_peppers(&[pepper("p3", 3), pepper("p2", 4)]).await.unwrap_err();
    assert!(matches!(error, PepperError::Differs(id) if id == "p2"));
}
