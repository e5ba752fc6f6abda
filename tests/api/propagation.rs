//! V1 across replicas: several servers on one database, each answering from memory.

use std::time::Duration;

use latchkey::proto::{
    AwaitPropagationRequest, DeleteApiKeyRequest, DisableApiKeyRequest, Propagation, Revision,
    VerificationOutcome as Outcome, VerifyTokenRequest,
};
use tokio::time::Instant;
use tonic::Code;

use crate::support::{
    Caller, Server, World,
    database::Database,
    sql,
    world::{ACME, assert_refused, create, key},
};

/// The world's server and two more on the same database.
pub async fn three() -> (World, [Server; 2]) {
    let world = World::start().await;
    let again = || {
        let database = &world.server.database;
        Database {
            name: database.name.clone(),
            app_url: database.app_url.clone(),
            owner_url: database.owner_url.clone(),
        }
    };
    let more = [Server::start_on(again(), |flags| flags).await, Server::start_on(again(), |flags| flags).await];
    (world, more)
}

async fn outcome(verifier: &Caller, token: &str) -> Outcome {
    let request = VerifyTokenRequest { token: token.into(), ..Default::default() };
    let response = verifier.tokens().verify_token(request).await.expect("an answer").into_inner();
    response.verification.expect("a verification").outcome()
}

async fn delete(caller: &Caller, key_id: &str, skip: bool) -> Propagation {
    let request = DeleteApiKeyRequest {
        account_id: ACME.into(),
        key_id: key_id.into(),
        skip_propagation_wait: skip,
        ..Default::default()
    };
    caller.keys().delete_api_key(request).await.expect("deleted").into_inner().propagation.expect("a propagation")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_once_a_deletion_is_complete_no_replica_answers_valid() {
    let (world, more) = three().await;
    let verifiers: Vec<_> = std::iter::once(&world.server)
        .chain(&more)
        .map(|server| Caller { channel: server.channel.clone(), ..world.verifier.clone() })
        .collect();
    for _ in 0..20 {
        let minted = create(&world.user("admin"), ACME, &key("k", &["incidents.view"])).await.expect("minted");
        for verifier in &verifiers {
            assert_eq!(outcome(verifier, &minted.token).await, Outcome::Valid);
        }
        let done = delete(&world.user("admin"), &minted.api_key.expect("a key").key_id, false).await;
        assert_eq!((done.complete, done.pending_replicas), (true, 0), "{done:?}");
        for verifier in &verifiers {
            assert_eq!(outcome(verifier, &minted.token).await, Outcome::Deleted);
        }
    }
}

/// A replica that was killed: its row stays, and nothing renews it.
async fn add_dead_replica(world: &World, lease_ms: u32) {
    let insert = format!(
        "INSERT INTO replicas (incarnation, lease_ms, stale_max_ms, pepper_ids, name) \
         VALUES (gen_random_uuid(), {lease_ms}, 0, ARRAY['test'], 'dead')"
    );
    sql::run(&world.server.database, &insert).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_replica_that_may_still_serve_is_waited_for_and_then_evicted() {
    let world = World::start().await;
    let minted = create(&world.user("admin"), ACME, &key("k", &[])).await.expect("minted");
    let key_id = minted.api_key.expect("a key").key_id;
    add_dead_replica(&world, 1_500).await;
    // The caller's deadline comes first: the change is made, and the answer says who is pending.
    let mut request = tonic::Request::new(DisableApiKeyRequest {
        account_id: ACME.into(),
        key_id: key_id.clone(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_millis(500));
    let early = world.user("admin").keys().disable_api_key(request).await.expect("answered in time").into_inner();
    let early = early.propagation.expect("a propagation");
    assert_eq!((early.complete, early.pending_replicas), (false, 1));
    // Repeating it appends nothing and waits again, until the dead replica can serve no more.
    let started = Instant::now();
    let again = DisableApiKeyRequest { account_id: ACME.into(), key_id: key_id.clone(), ..Default::default() };
    let again = world.user("admin").keys().disable_api_key(again).await.expect("answered").into_inner();
    let again = again.propagation.expect("a propagation");
    assert_eq!((again.complete, again.revision), (true, early.revision));
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    let rows = sql::lines(&world.server.database, "SELECT name AS line FROM replicas").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    // No call waits for it twice.
    let started = Instant::now();
    assert!(delete(&world.user("admin"), &key_id, false).await.complete);
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_may_ask_not_to_wait_and_wait_later() {
    let world = World::start().await;
    let minted = create(&world.user("admin"), ACME, &key("k", &[])).await.expect("minted");
    add_dead_replica(&world, 1_500).await;
    let started = Instant::now();
    let done = delete(&world.user("admin"), &minted.api_key.expect("a key").key_id, true).await;
    // The lost one; its own server may not have applied it yet either.
    assert!(!done.complete && (1..=2).contains(&done.pending_replicas), "{done:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    let request = AwaitPropagationRequest { revision: done.revision };
    let awaited = world.verifier.events().await_propagation(request).await.expect("any caller may").into_inner();
    assert_eq!(awaited.propagation.map(|p| (p.complete, p.revision)), Some((true, done.revision)));
    let future = AwaitPropagationRequest { revision: Some(Revision { epoch: 1, number: 1_000_000 }) };
    let refused = world.verifier.events().await_propagation(future).await;
    assert_refused(refused, Code::Unavailable, "REVISION_NOT_REACHED", "revision");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_leaves_no_row_to_wait_for() {
    let (world, more) = three().await;
    let rows = async || sql::lines(&world.server.database, "SELECT name AS line FROM replicas").await.len();
    assert_eq!(rows().await, 3);
    for server in more {
        server.running.stop().await;
    }
    assert_eq!(rows().await, 1);
}

/// A token that no caller can have presented is in no memory: there is nothing to wait for, not even here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_good_before_any_replica_has_applied_its_event() {
    let world = World::start().await;
    let owner = world.user("owner");
    let database = world.server.database.clone();
    let held = tokio::spawn(async move {
        // The follower applies one event, cannot say so, and hence applies no other.
        sql::run(&database, "BEGIN; LOCK TABLE replicas IN EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT").await;
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for name in ["one", "two"] {
        let made = create(&owner, ACME, &key(name, &["incidents.view"])).await.expect("minted");
        assert!(made.propagation.expect("a propagation").complete);
        assert_eq!(outcome(&world.verifier, &made.token).await, Outcome::Valid);
    }
    assert!(!held.is_finished(), "no call waited for it");
    held.await.expect("released");
}
