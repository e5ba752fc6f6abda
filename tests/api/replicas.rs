//! Several servers on one database, each a replica; and a history that is replaced under them.

use std::time::Duration;

use latchkey::{
    app::ports::{Lane, ReplicaRow, Replicas, Store},
    domain::log::revision::Revision,
    proto::{DeleteApiKeyRequest, VerificationOutcome, VerifyEventChainRequest, VerifyTokenRequest},
    store::{LaneSizes, PostgresStore, StoreOptions},
};
use tonic::Code;

use crate::{
    calls::unknown_token,
    support::{
        Caller, Server,
        database::{self, Database},
        server::{TWO_PEPPERS, settings},
        sql,
        world::{self, apply_example_catalogue, create},
    },
};

/// Two servers on one database. The operator's key of the first is everybody's.
async fn two() -> (Server, Server, Caller) {
    let database = database::fresh().await;
    let again = Database {
        name: database.name.clone(),
        app_url: database.app_url.clone(),
        owner_url: database.owner_url.clone(),
    };
    let one = Server::start_on(database, |flags| flags).await;
    let two = Server::start_on(again, |flags| flags).await;
    apply_example_catalogue(&one.operator).await;
    let there = Caller { channel: two.channel.clone(), ..one.operator.clone() };
    (one, two, there)
}

fn store(database: &Database) -> PostgresStore {
    let options = StoreOptions {
        url: database.app_url.clone(),
        sizes: LaneSizes { narrowing: 2, callers: 1, mutations: 4, reads: 4, watches: 2, misses: 2, upkeep: 1 },
        timeout: Duration::from_secs(5),
        pepper_ids: vec!["test".into()],
        runtime: tokio::runtime::Handle::current(),
        bulk: tokio::runtime::Handle::current(),
    };
    PostgresStore::connect(options).expect("the options are good")
}

async fn verify(caller: &Caller, token: &str) -> Result<(VerificationOutcome, Revision), Code> {
    let request = VerifyTokenRequest { token: token.into(), requirement: None, min_revision: None };
    let response = caller.tokens().verify_token(request).await.map_err(|status| status.code())?;
    let found = response.into_inner().verification.expect("a verification");
    let revision = found.revision.expect("a revision");
    Ok((found.outcome(), Revision { epoch: revision.epoch, number: revision.number }))
}

/// Until a condition holds, or much too long has passed.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}");
}

fn all_applied(rows: &[ReplicaRow], revision: Revision) -> bool {
    rows.len() == 2 && rows.iter().all(|row| row.applied >= revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_are_two_replicas_that_both_serve() {
    let (one, two, there) = two().await;
    let store = store(&one.database);
    let rows = store.replicas().await.expect("rows").rows;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.lease == Duration::from_secs(10) && row.stale_max == Duration::ZERO));
    let minted = create(&one.operator, "system", &world::key("k", &["system.verify"])).await.expect("minted");
    for caller in [&one.operator, &there] {
        let (outcome, _) = verify(caller, &minted.token).await.expect("an answer");
        assert_eq!(outcome, VerificationOutcome::Valid);
    }
    let key_id = minted.api_key.expect("a key").key_id;
    let delete = DeleteApiKeyRequest { account_id: "system".into(), key_id, ..Default::default() };
    one.operator.keys().delete_api_key(delete).await.expect("deleted");
    let head = store.snapshot(Lane::Reads).await.expect("opens").head().await.expect("a head");
    // What every row has applied, every server refuses, from its cache too.
    until("both replicas acknowledge", || async { all_applied(&store.replicas().await.expect("rows").rows, head) })
        .await;
    for caller in [&one.operator, &there] {
        let (outcome, revision) = verify(caller, &minted.token).await.expect("an answer");
        assert_eq!(outcome, VerificationOutcome::Deleted);
        assert!(revision >= head);
    }
    // A server that stops is not waited for.
    two.running.stop().await;
    assert_eq!(store.replicas().await.expect("rows").rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_evicted_joins_again_by_itself() {
    let server = Server::start_with(|flags| flags.with("lease_ms", "2000")).await;
    let store = store(&server.database);
    let first = store.replicas().await.expect("rows").rows[0];
    until("a renewal", || async { store.replicas().await.expect("rows").rows[0].renewal_no > first.renewal_no }).await;
    until("an eviction between two renewals", || async {
        let row = store.replicas().await.expect("rows").rows[0];
        store.evict_replica(row.incarnation, row.renewal_no).await.expect("evicts")
    })
    .await;
    until("one replica", || async { store.replicas().await.expect("rows").rows.len() == 1 }).await;
    assert_ne!(store.replicas().await.expect("rows").rows[0].incarnation, first.incarnation);
    until("the lease", || async { server.running.app().verifier().has_lease() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_a_restored_database_is_unavailable_until_its_history_is_accepted_and_then_served_without_a_restart() {
    let (one, two, there) = two().await;
    let store = store(&one.database);
    let before = store.snapshot(Lane::Reads).await.expect("opens").head().await.expect("a head");
    let minted = create(&one.operator, "system", &world::key("lost", &["system.verify"])).await.expect("minted");
    let servers = [(&one, &one.operator), (&two, &there)];
    for (_, caller) in servers {
        assert_eq!(verify(caller, &minted.token).await.map(|found| found.0), Ok(VerificationOutcome::Valid));
    }
    // What a fail-over to a standby that had not received the last events would leave.
    let head = before.number;
    one.database
        .execute_as_owner(&format!(
            "DELETE FROM api_key_secrets WHERE key_id IN (SELECT key_id FROM api_keys WHERE name = 'lost'); \
             UPDATE api_keys SET state = 'deleted', delete_time = now() WHERE name = 'lost'; \
             DELETE FROM api_keys WHERE name = 'lost'; DELETE FROM events WHERE number > {head}; \
             UPDATE log_head SET number = {head}, hash = (SELECT hash FROM events WHERE number = {head})"
        ))
        .await;
    for (server, caller) in servers {
        until("out of service", || async { !server.running.app().verifier().in_service() }).await;
        assert_eq!(verify(caller, &minted.token).await, Err(Code::Unavailable));
        assert_eq!(verify(caller, &caller.token).await, Err(Code::Unavailable));
    }
    let accepted = one.running.app().accept_history().await.expect("accepted");
    assert_eq!(accepted.before, before);
    assert_eq!(accepted.after, Revision { epoch: before.epoch + 1, number: head + 1 });
    for (server, caller) in servers {
        until("in service", || async { server.running.app().verifier().has_lease() }).await;
        assert_eq!(verify(caller, &minted.token).await, Ok((VerificationOutcome::Unknown, accepted.after)));
        assert_eq!(verify(caller, &caller.token).await, Ok((VerificationOutcome::Valid, accepted.after)));
    }
    until("two rows", || async { all_applied(&store.replicas().await.expect("rows").rows, accepted.after) }).await;
    // And the chain verifies across the epochs.
    let chain = one.operator.events().verify_event_chain(VerifyEventChainRequest::default()).await.expect("walks");
    let chain = chain.into_inner();
    assert!(chain.valid, "{chain:?}");
    assert_eq!(chain.verified_through.map(|through| (through.epoch, through.number)), Some((2, head + 1)));
}

/// A rolling change of peppers: nobody may take a token for an unknown one meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_a_new_pepper_is_minted_under_once_every_replica_has_it() {
    let old = Server::start().await;
    let new = Server::start_on(old.database.clone(), |flags| flags.with("peppers", TWO_PEPPERS)).await;
    let there = Caller { channel: new.channel.clone(), ..old.operator.clone() };
    let under = async || {
        let minted = create(&there, "system", &world::key("k", &["system.verify"])).await.expect("minted");
        let latest = "SELECT pepper_id AS line FROM api_key_secrets ORDER BY create_time DESC LIMIT 1";
        (minted.token, sql::lines(&old.database, latest).await.concat())
    };
    let (token, pepper) = under().await;
    assert_eq!(pepper, "test");
    for caller in [&old.operator, &there] {
        assert_eq!(verify(caller, &token).await.map(|found| found.0), Ok(VerificationOutcome::Valid));
    }
    assert_eq!(verify(&old.operator, &unknown_token()).await.map(|found| found.0), Ok(VerificationOutcome::Unknown));
    old.running.stop().await;
    let (token, pepper) = under().await;
    assert_eq!(pepper, "new");
    assert_eq!(verify(&there, &token).await.map(|found| found.0), Ok(VerificationOutcome::Valid));
    // Who lacks it is told so, and does not start.
    let settings = settings(&old.database.app_url, |flags| flags);
    let refused = latchkey::server::start(&settings, std::sync::Arc::default()).await.err().expect("it is refused");
    assert!(refused.to_string().contains("live tokens need peppers that are not configured: new"), "{refused}");
}
