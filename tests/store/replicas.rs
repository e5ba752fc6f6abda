//! The rows of `replicas`: registered, acknowledged, renewed, given up, evicted; and how durably.

use std::time::Duration;

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use latchkey::{
    app::ports::{ReplicaRow, Replicas},
    domain::log::{event::GENESIS, revision::Revision},
    store::PostgresStore,
    verify::primary::{Acknowledged, Acknowledgement, Primary, Registration},
};
use uuid::Uuid;

use crate::{
    database::{Database, connect, execute, fresh_database, refused, store},
    fixtures::*,
};

const LEASE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(150);
const EMPTY: Revision = Revision { epoch: 1, number: 0 };

fn registration(n: u128) -> Registration {
    Registration {
        incarnation: Uuid::from_u128(n),
        lease: LEASE,
        stale_max: Duration::from_micros(1_500_001),
        pepper_ids: vec!["p1".into(), "p2".into()],
        name: "host/1".into(),
    }
}

fn row(n: u128, renewal_no: i64, applied: Revision) -> ReplicaRow {
    let stale_max = Duration::from_millis(1_501);
    ReplicaRow { incarnation: Uuid::from_u128(n), renewal_no, applied, lease: LEASE, stale_max }
}

fn acknowledgement(n: u128, applied: Revision, hash: [u8; 32], renew: bool) -> Acknowledgement {
    Acknowledgement { incarnation: Uuid::from_u128(n), applied, hash, renew }
}

/// A database with one replica, and events.
async fn registered(events: u32) -> Database {
    let db = fresh_database().await;
    for n in 0..events {
        put_account(&db.store, &format!("a{n}"), &[]).await;
    }
    db.store.register(&registration(1)).await.unwrap();
    db
}

async fn acknowledge(store: &PostgresStore, applied: Revision, hash: [u8; 32], renew: bool) -> Acknowledged {
    store.acknowledge(&acknowledgement(1, applied, hash, renew)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_registers_acknowledges_renews_and_leaves() {
    let db = registered(2).await;
    db.store.register(&registration(2)).await.unwrap();
    let nothing = Revision { epoch: 0, number: 0 };
    assert_eq!(db.store.replicas().await.unwrap().rows, [row(1, 1, nothing), row(2, 1, nothing)]);
    let head = Primary::head(&db.store, &sent()).await.unwrap();
    assert_eq!(acknowledge(&db.store, EMPTY, GENESIS, false).await, Acknowledged::Recorded);
    assert_eq!(db.store.replicas().await.unwrap().rows[0], row(1, 1, EMPTY));
    assert_eq!(acknowledge(&db.store, head.revision, head.hash, true).await, Acknowledged::Recorded);
    assert_eq!(acknowledge(&db.store, head.revision, head.hash, true).await, Acknowledged::Recorded);
    assert_eq!(db.store.replicas().await.unwrap().rows, [row(1, 3, head.revision), row(2, 1, nothing)]);
    db.store.deregister(Uuid::from_u128(1)).await.unwrap();
    db.store.deregister(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(acknowledge(&db.store, head.revision, head.hash, true).await, Acknowledged::Evicted);
    assert_eq!(db.store.replicas().await.unwrap().rows, [row(2, 1, nothing)]);
    // An incarnation is registered once in its life.
    assert!(db.store.register(&registration(2)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_only_the_event_with_that_hash_in_that_epoch_is_acknowledged() {
    let db = registered(2).await;
    let Revision { epoch, number } = Primary::head(&db.store, &sent()).await.unwrap().revision;
    let hash = Primary::head(&db.store, &sent()).await.unwrap().hash;
    let other = Acknowledged::HistoryDiverged;
    for renew in [false, true] {
        for (epoch, number, hash) in [
            (epoch, number, [9; 32]),
            (epoch, number + 1, hash),
            (epoch, number - 1, hash),
            (epoch + 1, number, hash),
            (epoch, 0, hash),
            (epoch + 1, 0, GENESIS),
        ] {
            assert_eq!(
                acknowledge(&db.store, Revision { epoch, number }, hash, renew).await,
                other,
                "{epoch}.{number}"
            );
        }
    }
    assert_eq!(db.store.replicas().await.unwrap().rows[0].renewal_no, 1, "and nothing is renewed");
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_an_eviction_takes_only_a_row_that_was_not_renewed_since() {
    let db = registered(0).await;
    let one = Uuid::from_u128(1);
    assert_eq!(acknowledge(&db.store, EMPTY, GENESIS, true).await, Acknowledged::Recorded);
    assert!(!db.store.evict_replica(one, 1).await.unwrap());
    assert!(db.store.evict_replica(one, 2).await.unwrap());
    assert!(!db.store.evict_replica(one, 2).await.unwrap(), "is gone");
    assert_eq!(acknowledge(&db.store, EMPTY, GENESIS, true).await, Acknowledged::Evicted);
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_an_eviction_waits_for_a_renewal_in_flight() {
    for commits in [true, false] {
        let db = registered(0).await;
        let mut renewing = connect(&db.url).await;
        renewing.batch_execute("BEGIN; UPDATE replicas SET renewal_no = renewal_no + 1").await.unwrap();
        let (store, one) = (db.store.clone(), Uuid::from_u128(1));
        let evicting = tokio::spawn(async move { store.evict_replica(one, 1).await.unwrap() });
        tokio::time::sleep(SOON).await;
        assert!(!evicting.is_finished());
        renewing.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        assert_eq!(evicting.await.unwrap(), !commits);
        assert_eq!(db.store.replicas().await.unwrap().rows.len(), usize::from(commits));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_a_renewal_waits_for_an_eviction_in_flight() {
    for commits in [true, false] {
        let db = registered(0).await;
        let mut evicting = connect(&db.url).await;
        evicting.batch_execute("BEGIN; DELETE FROM replicas WHERE renewal_no = 1").await.unwrap();
        let store = db.store.clone();
        let renewing = tokio::spawn(async move { acknowledge(&store, EMPTY, GENESIS, true).await });
        tokio::time::sleep(SOON).await;
        assert!(!renewing.is_finished());
        evicting.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        let found = renewing.await.unwrap();
        assert_eq!(found, if commits { Acknowledged::Evicted } else { Acknowledged::Recorded });
    }
}

#[derive(QueryableByName)]
struct Noted {
    #[diesel(sql_type = Text)]
    text: String,
}

/// The setting as it is when the transaction commits, noted by a trigger that runs then.
#[tokio::test(flavor = "multi_thread")]
async fn v1_what_a_replica_counts_on_is_durable_and_an_acknowledgement_alone_is_not() {
    let db = fresh_database().await;
    execute(
        &db.url,
        "CREATE TABLE noted (n serial, text text); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO noted (text) VALUES (TG_OP || ' ' || current_setting('synchronous_commit')); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON replicas \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    let name = db.url.rsplit_once('/').unwrap().1;
    for (default, durable) in [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
        execute(&db.url, &format!("ALTER DATABASE {name} SET synchronous_commit = {default}")).await;
        let store = store(&db.url, Duration::from_secs(5));
        store.register(&registration(1)).await.unwrap();
        assert_eq!(acknowledge(&store, EMPTY, GENESIS, false).await, Acknowledged::Recorded);
        assert_eq!(acknowledge(&store, EMPTY, GENESIS, true).await, Acknowledged::Recorded);
        assert!(store.evict_replica(Uuid::from_u128(1), 2).await.unwrap());
        let sql = "SELECT string_agg(text, ', ' ORDER BY n) AS text FROM noted";
        let noted = sql_query(sql).get_result::<Noted>(&mut connect(&db.url).await).await.unwrap().text;
        assert_eq!(noted, format!("INSERT {durable}, UPDATE off, UPDATE {durable}, DELETE {durable}"));
        execute(&db.url, "TRUNCATE noted").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_refuses_impossible_replicas_and_revisions_that_fit_no_stamp() {
    let db = registered(0).await;
    for (sql, constraint) in [
        ("UPDATE replicas SET renewal_no = 0", "replicas_renewal_no_check"),
        ("UPDATE replicas SET applied_epoch = -1", "replicas_applied_epoch_check"),
        ("UPDATE replicas SET applied_number = -1", "replicas_applied_number_check"),
        ("UPDATE replicas SET lease_ms = 0", "replicas_lease_ms_check"),
        ("UPDATE replicas SET stale_max_ms = -1", "replicas_stale_max_ms_check"),
        ("UPDATE replicas SET pepper_ids = '{}'", "replicas_pepper_ids_check"),
        ("UPDATE replicas SET pepper_ids = '{NULL}'", "replicas_pepper_ids_check"),
        ("UPDATE replicas SET name = repeat('x', 201)", "replicas_name_check"),
        ("UPDATE log_head SET epoch = 8388608", "log_head_fits_a_stamp"),
        ("UPDATE log_head SET number = 1099511627776", "log_head_fits_a_stamp"),
    ] {
        let message = refused(&db.url, sql).await;
        assert!(message.contains(constraint), "{sql}: {message}");
    }
    execute(&db.url, "UPDATE log_head SET epoch = 8388607, number = 1099511627775").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_role_can_do_all_that_a_replica_does() {
    let db = fresh_database().await;
    let name = db.url.rsplit_once('/').unwrap().1;
    execute(&db.url, &format!("ALTER ROLE postgres IN DATABASE {name} SET role = '{}'", crate::database::APP_ROLE))
        .await;
    let store = store(&db.url, Duration::from_secs(5));
    store.register(&registration(1)).await.unwrap();
    assert_eq!(acknowledge(&store, EMPTY, GENESIS, true).await, Acknowledged::Recorded);
    assert_eq!(store.replicas().await.unwrap().rows.len(), 1);
    assert!(!store.evict_replica(Uuid::from_u128(1), 1).await.unwrap());
    store.deregister(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(acknowledge(&store, EMPTY, GENESIS, true).await, Acknowledged::Evicted);
}
