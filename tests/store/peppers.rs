//! Peppers: which one is minted under, and that nobody who lacks one takes a good token for an unknown one.

use std::time::Duration;

use latchkey::{
    store::PostgresStore,
    verify::primary::{Primary, Registration},
};
use uuid::Uuid;

use crate::{
    database::{Database, execute, fresh_database, store_with},
    fixtures::*,
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a statement that waits for no lock.
const SOON: Duration = Duration::from_millis(200);

/// A database that knows `p1` and `p2`, with one token under `p1`.
async fn with_two_peppers() -> Database {
    let db = fresh_database().await;
    execute(&db.url, "INSERT INTO peppers VALUES ('p2', decode(repeat('02', 32), 'hex'), false)").await;
    put_account(&db.store, "acme", &[]).await;
    put_key(&db.store, &api_key(1, "acme", grants(&[], &[], &[])), 1).await;
    db
}

async fn register(store: &PostgresStore, n: u128, pepper_ids: &[&str]) {
    let registration = Registration {
        incarnation: Uuid::from_u128(n),
        lease: Duration::from_secs(10),
        stale_max: Duration::ZERO,
        pepper_ids: pepper_ids.iter().map(|id| (*id).to_owned()).collect(),
        name: "host/1".into(),
    };
    store.register(&registration).await.unwrap();
}

async fn minting_pepper(store: &PostgresStore) -> Option<String> {
    let mut tx = begin(store, "acme").await;
    let chosen = tx.minting_pepper().await.unwrap();
    tx.commit().await.unwrap();
    chosen
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_tokens_are_minted_under_the_first_pepper_that_every_replica_has() {
    let db = with_two_peppers().await;
    let store = store_with(&db.url, TIMEOUT, &["p2", "p1"]);
    assert_eq!(minting_pepper(&store).await.as_deref(), Some("p2"));
    register(&store, 1, &["p2", "p1"]).await;
    assert_eq!(minting_pepper(&store).await.as_deref(), Some("p2"));
    register(&store, 2, &["p1"]).await;
    assert_eq!(minting_pepper(&store).await.as_deref(), Some("p1"));
    register(&store, 3, &["p3"]).await;
    assert_eq!(minting_pepper(&store).await, None);
    for gone in [2, 3] {
        store.deregister(Uuid::from_u128(gone)).await.unwrap();
    }
    assert_eq!(minting_pepper(&store).await.as_deref(), Some("p2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_without_a_pepper_in_use_absence_is_not_known_and_presence_is() {
    let db = with_two_peppers().await;
    let (with, without) = (store_with(&db.url, TIMEOUT, &["p1", "p2"]), store_with(&db.url, TIMEOUT, &["p1"]));
    let absent = async |store: &PostgresStore| {
        let fill = store.fill(&[digest(9, 9)], &sent()).await.unwrap();
        fill.token.is_none() && !fill.lacks_pepper
    };
    assert!(absent(&without).await);
    assert!(without.missing_peppers().await.unwrap().is_empty());

    minting_pepper(&store_with(&db.url, TIMEOUT, &["p2"])).await.unwrap();
    assert!(!absent(&without).await);
    assert!(without.fill(&[digest(1, 0)], &sent()).await.unwrap().token.is_some());
    assert!(absent(&with).await);
    // Nothing was minted after all: nobody misses it, and it goes out of use.
    assert!(without.missing_peppers().await.unwrap().is_empty());
    assert!(absent(&without).await);
    // A live token needs p1.
    assert_eq!(store_with(&db.url, TIMEOUT, &["p2"]).missing_peppers().await.unwrap(), ["p1"]);
}

/// A replica that mints has either seen the replica that registered, or is waited for by it.
#[tokio::test(flavor = "multi_thread")]
async fn v2_a_replica_that_joins_waits_for_a_replica_that_mints() {
    let db = with_two_peppers().await;
    let minting = store_with(&db.url, TIMEOUT, &["p2"]);
    let mut tx = begin(&minting, "acme").await;
    assert_eq!(tx.minting_pepper().await.unwrap().as_deref(), Some("p2"));
    let joining = store_with(&db.url, TIMEOUT, &["p1"]);
    register(&joining, 1, &["p1"]).await;
    let asking = {
        let joining = joining.clone();
        tokio::spawn(async move { joining.missing_peppers().await })
    };
    tokio::time::sleep(SOON).await;
    assert!(!asking.is_finished());
    let key = api_key(2, "acme", grants(&[], &[], &[]));
    let secret = latchkey::app::ports::NewSecret { pepper_id: "p2".into(), digest: digest(2, 1) };
    tx.insert_api_key(&key, &secret).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), ["p2"]);
    // And who comes after it has seen it.
    assert_eq!(minting_pepper(&minting).await, None);
}
