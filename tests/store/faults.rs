//! Faults: what is dropped, late, gone or unknown. A fault may fail a call, never answer it wrongly (V2).

use std::{pin::pin, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::poll_immediate;
use latchkey::{
    app::{
        error::StoreError,
        ports::{Lane, Locks, Prefetch, Store},
    },
    domain::log::event::EventKind,
    verify::primary::Primary,
};

use crate::{
    database::{Database, connect, execute, fresh_database, store},
    fixtures::*,
};

const SOON: Duration = Duration::from_millis(150);

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    text: String,
}

async fn text(db: &Database, sql: &str) -> String {
    sql_query(sql).get_result::<Row>(&mut connect(&db.url).await).await.unwrap().text
}

fn name(db: &Database) -> &str {
    db.url.rsplit_once('/').unwrap().1
}

async fn terminate_others(db: &Database, which: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{}' AND pid <> pg_backend_pid() AND {which}",
        name(db)
    );
    execute(&db.url, &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_changes_nothing_and_leaves_no_dirty_connection() {
    let db = fresh_database().await;
    for _ in 0..30 {
        // More than the pool holds: each connection comes back clean or not at all.
        let mut tx = begin(&db.store, "acme").await;
        tx.put_account(&account("acme")).await.unwrap();
        tx.append(vec![event(EventKind::AccountCreated, "acme", ("account", "acme"), vec![])]).await.unwrap();
        drop(tx);
        let mut reader = snapshot(&db.store).await;
        assert!(reader.account(&account_id("acme")).await.unwrap().is_none());
        assert_eq!(reader.head().await.unwrap().number, 0);
    }
    tokio::time::sleep(SOON).await;
    let open = "SELECT count(*)::text AS text FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = ";
    assert_eq!(text(&db, &format!("{open} current_database()")).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_statement_that_is_late_or_dropped_reaches_another() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    put_key(&db.store, &api_key(1, "acme", grants(&[], &[], &[])), 1).await;
    let hasty = store(&db.url, Duration::from_millis(400));
    hasty.fill(&[digest(1, 0)], &sent()).await.unwrap();
    let mut blocker = connect(&db.url).await;
    blocker.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    assert!(hasty.fill(&[digest(1, 0)], &sent()).await.is_err(), "cannot know is not UNKNOWN");
    assert!(tokio::time::timeout(SOON, hasty.fill(&[digest(1, 0)], &sent())).await.is_err());
    let mut reader = snapshot(&hasty).await;
    assert!(tokio::time::timeout(SOON, reader.api_key(&account_id("acme"), key_id(1))).await.is_err());
    drop(reader);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    // No answer of a statement given up may reach the next one.
    for n in [2, 1, 2] {
        let fill = hasty.fill(&[digest(n, 0)], &sent()).await.unwrap();
        assert_eq!(fill.token.map(|(matched, _)| matched), (n == 1).then(|| digest(1, 0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_cost_postgresql_no_new_connection() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    let patient = store(&db.url, Duration::from_secs(30));
    let sessions = "SELECT count(*)::text AS text FROM pg_stat_activity WHERE datname = current_database()";
    let before: i64 = text(&db, sessions).await.parse().unwrap();
    let mut given_up = 0;
    for _ in 0..100 {
        let mut reader = snapshot(&patient).await;
        // Sent, and given up. One whose answer came within its first poll, its thread having stood still, is none.
        given_up += i32::from(poll_immediate(reader.api_key(&account_id("acme"), key_id(1))).await.is_none());
        drop(reader);
        given_up += i32::from(poll_immediate(pin!(patient.fill(&[digest(1, 0)], &sent()))).await.is_none());
    }
    assert!(given_up >= 150, "{given_up} of 200");
    // And while a connection is made.
    let cold = store(&db.url, Duration::from_secs(30));
    for _ in 0..200 {
        assert!(poll_immediate(cold.snapshot(Lane::Reads)).await.is_none_or(|made| made.is_ok()));
    }
    let after: i64 = text(&db, sessions).await.parse().unwrap();
    assert!(after - before <= 32, "{before} connections were {after} after calls that were given up");
    patient.fill(&[digest(1, 0)], &sent()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_given_up_ends_on_the_server_too() {
    let db = fresh_database().await;
    let hasty = store(&db.url, Duration::from_millis(400));
    let mut blocker = connect(&db.url).await;
    blocker.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for _ in 0..5 {
        assert!(tokio::time::timeout(SOON, hasty.fill(&[digest(1, 0)], &sent())).await.is_err());
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let waiting = "SELECT count(*)::text AS text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = ";
    assert_eq!(text(&db, &format!("{waiting} current_database()")).await, "0");
}

/// Diesel drops most SQLSTATEs: these are told by messages, so this server's must be what is expected.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_a_conflict() {
    let db = fresh_database().await;
    put_account(&db.store, "a", &[]).await;
    put_account(&db.store, "b", &[]).await;
    let (mut one, mut two) = (begin(&db.store, "a").await, begin(&db.store, "b").await);
    // Against the order that locks are taken in.
    let one = tokio::spawn(async move { one.put_account(&account("b")).await });
    let two = two.put_account(&account("a")).await;
    let results = [one.await.unwrap(), two];
    let conflicts = results.iter().filter(|result| matches!(result, Err(StoreError::Conflict(_)))).count();
    assert!(conflicts >= 1, "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_unavailable_never_absence() {
    let gone = store("postgres://postgres@127.0.0.1:1/none", Duration::from_secs(2));
    assert!(matches!(gone.snapshot(Lane::Reads).await.err(), Some(StoreError::Unavailable(_))));
    assert!(matches!(
        gone.begin(Lane::Mutations, "test", true, &exclusive("a")).await.err(),
        Some(StoreError::Unavailable(_))
    ));
    assert!(gone.fill(&[digest(1, 0)], &sent()).await.is_err());
    assert!(Primary::head(&gone, &sent()).await.is_err());
    assert!(Primary::catalogue(&gone).await.is_err());

    let db = fresh_database().await;
    let mut tx = begin(&db.store, "acme").await;
    let mut reader = snapshot(&db.store).await;
    db.store.fill(&[digest(1, 0)], &sent()).await.unwrap();
    terminate_others(&db, "true").await;
    let lost = tx.account(&account_id("acme")).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    assert!(matches!(reader.head().await, Err(StoreError::Unavailable(_))));
    // Closed connections are not handed out again.
    tokio::time::sleep(SOON).await;
    for _ in 0..3 {
        db.store.fill(&[digest(1, 0)], &sent()).await.unwrap();
        snapshot(&db.store).await.head().await.unwrap();
    }
    db.store.close();
    assert!(matches!(db.store.snapshot(Lane::Reads).await.err(), Some(StoreError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_not_asked() {
    let db = fresh_database().await;
    execute(&db.url, &format!("ALTER DATABASE {} SET default_transaction_read_only = on", name(&db))).await;
    assert!(matches!(db.store.snapshot(Lane::Reads).await.err(), Some(StoreError::Unavailable(_))));
    assert!(db.store.fill(&[digest(1, 0)], &sent()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_breaks_or_is_late_has_an_unknown_outcome() {
    let db = fresh_database().await;
    execute(
        &db.url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON accounts DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    .await;
    let mut tx = begin(&db.store, "acme").await;
    tx.put_account(&account("acme")).await.unwrap();
    let commit = tokio::spawn(tx.commit());
    tokio::time::sleep(SOON).await;
    terminate_others(&db, "query = 'COMMIT' AND state = 'active'").await;
    let broken = commit.await.unwrap();
    assert!(matches!(broken, Err(StoreError::OutcomeUnknown(_))), "{broken:?}");

    let hasty = store(&db.url, Duration::from_millis(400));
    let mut tx = begin(&hasty, "other").await;
    tx.put_account(&account("other")).await.unwrap();
    let late = tx.commit().await;
    assert!(matches!(late, Err(StoreError::OutcomeUnknown(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_postgresql_refuses_is_known_to_have_failed() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    let key = api_key(1, "acme", grants(&[], &["t1"], &["b"]));
    put_key(&db.store, &key, 1).await;
    // K2 broken on purpose, behind the port's back: the judge would not.
    let mut forged = key.clone();
    forged.content.grants = grants(&[], &["t1"], &["b"]);
    let mut tx = begin(&db.store, "acme").await;
    tx.insert_api_key(&api_key(2, "acme", grants(&["a"], &[], &[])), &secret(2, 0)).await.unwrap();
    let elsewhere = with_grants(&key, grants(&[], &["t2"], &["b"]));
    // As if it were on that team already: the row of its own goes, none comes, and the permissions stay.
    tx.update_api_key(&elsewhere, &elsewhere).await.unwrap();
    let refused = tx.commit().await;
    assert!(matches!(refused, Err(StoreError::Bug(_))), "{refused:?}");
    assert_eq!(get_key(&db.store, &key).await.content, forged.content);

    // PostgreSQL answers COMMIT after an error with ROLLBACK, as if that were success.
    let mut tx = begin(&db.store, "acme").await;
    tx.put_teams(&account_id("acme"), &[team("t2")]).await.unwrap();
    assert!(tx.delete_team(&account_id("acme"), &team_id("t1"), THEN).await.is_ok());
    assert!(matches!(tx.insert_api_key(&key, &secret(3, 0)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(tx.commit().await, Err(StoreError::Bug(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_a_judge_that_waited_for_a_lock_sees_what_it_waited_for() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    let mut first = begin(&db.store, "acme").await;
    first.put_teams(&account_id("acme"), &[team("t1")]).await.unwrap();
    let judge_store = db.store.clone();
    let judge = tokio::spawn(async move {
        let (acme, t1) = (account_id("acme"), team_id("t1"));
        let prefetch = Prefetch { caller: None, account: Some(acme.clone()), teams: [t1.clone()].into() };
        let locks = Locks { shared: [acme.clone()].into(), prefetch, ..Locks::default() };
        let mut tx = judge_store.begin(Lane::Mutations, "judge", false, &locks).await.unwrap();
        // Asked for together with the locks, and read under them all the same.
        assert!(tx.missing_teams(&acme, &[t1.clone()].into()).await.unwrap().is_empty());
        tx.team(&acme, &t1).await.unwrap()
    });
    tokio::time::sleep(SOON).await;
    assert!(!judge.is_finished(), "waits for the change");
    first.commit().await.unwrap();
    assert!(judge.await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_lock_ends_as_a_conflict_and_shared_locks_do_not_wait() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    let hasty = store(&db.url, Duration::from_millis(400));
    let shared = Locks { shared: [account_id("acme")].into(), ..Locks::default() };
    let _judge = hasty.begin(Lane::Mutations, "judge", false, &shared).await.unwrap();
    let _other = hasty.begin(Lane::Mutations, "judge", false, &shared).await.unwrap();
    let late = hasty.begin(Lane::Mutations, "writer", false, &exclusive("acme")).await.err();
    assert!(matches!(late, Some(StoreError::Conflict(_))), "{late:?}");
    let catalogue = Locks { catalogue_exclusive: true, ..Locks::default() };
    let late = hasty.begin(Lane::Mutations, "operator", false, &catalogue).await.err();
    assert!(matches!(late, Some(StoreError::Conflict(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_durable_whatever_the_database_s_default() {
    let db = fresh_database().await;
    execute(
        &db.url,
        "CREATE TABLE noted (text text); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted VALUES \
         (current_setting('synchronous_commit') || ' ' || current_setting('transaction_isolation')); \
         RETURN NULL; END $$; \
         CREATE TRIGGER note AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    let settings =
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")];
    for (default, wanted) in settings {
        let sql = format!(
            "ALTER DATABASE {} SET synchronous_commit = {default}; ALTER DATABASE {0} SET \
            default_transaction_isolation = 'serializable'",
            name(&db)
        );
        for statement in sql.split(';') {
            execute(&db.url, statement).await;
        }
        let fresh = store(&db.url, Duration::from_secs(5));
        let mut tx = begin(&fresh, "x").await;
        tx.put_account(&account(&format!("x-{default}"))).await.unwrap();
        tx.commit().await.unwrap();
        let noted = text(&db, "SELECT text FROM noted ORDER BY ctid DESC LIMIT 1").await;
        assert_eq!(noted, format!("{wanted} read committed"), "default {default}");
    }
}
