//! Floods by one account's manager, beside what must not wait for them.

use std::time::Duration;

use latchkey::proto::{
    BatchUpsertTeamsRequest, CreateApiKeyRequest, DeleteApiKeyRequest, ListApiKeysRequest, ListEventsRequest,
    Propagation, RevokeTokenRequest, Team, VerifyEventChainRequest,
};
use tokio::time::Instant;
use tonic::{Request, Status};

use super::{Flood, apart};
use crate::support::{
    Caller, Server, World,
    calls::{get, list, revoke},
    world::{ACME, OTHER, create, key},
};

/// What a revocation may take beside a flood.
const DEADLINE: Duration = Duration::from_secs(2);
const REVOCATIONS: usize = 4;
/// How much longer the other tenant's calls may take beside a flood, at the median: both cores are busy with the flood,
/// its client included, in a build that is not optimised.
const SLOWER_MAX: u32 = 25;
const SLACK: Duration = Duration::from_millis(150);

async fn world() -> World {
    // The quota is not what is to be shown.
    let world = World::on(Server::start_with(|flags| flags.with("api_keys_per_account_max", "1000000")).await).await;
    let team = |n| Team { team_id: format!("team{n}"), display_name: "x".repeat(50), ..Default::default() };
    let teams = (0..1_000).map(team).collect();
    let request = BatchUpsertTeamsRequest { account_id: ACME.into(), teams, ..Default::default() };
    world.directory.directory().batch_upsert_teams(request).await.expect("teams");
    for _ in 0..50 {
        create(&world.user("admin"), ACME, &key("k", &["incidents.view"])).await.expect("minted");
    }
    world
}

async fn delete(caller: &Caller, account: &str, key_id: &str) -> Result<Propagation, Status> {
    let message = DeleteApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() };
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    Ok(caller.keys().delete_api_key(request).await?.into_inner().propagation.expect("a propagation"))
}

async fn keys(caller: &Caller, account: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(create(caller, account, &key("k", &[])).await.expect("minted").api_key.expect("a key").key_id);
    }
    ids
}

/// What the other tenant's get and create take, at the median.
async fn other_tenant(other: &Caller, key_id: &str) -> Duration {
    let mut took = Vec::new();
    for _ in 0..7 {
        let started = Instant::now();
        get(other, OTHER, key_id).await.expect("read");
        create(other, OTHER, &key("theirs", &[])).await.expect("minted");
        took.push(started.elapsed());
    }
    took.sort();
    took[took.len() / 2]
}

/// Floods the server with a call by account `acme`'s admin, and does beside it what must not wait.
async fn flooded<F, C>(world: &World, loops: usize, call: C)
where
    C: Fn(Caller) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), Status>> + Send,
{
    let (admin, owner) = (world.user("admin"), world.user("owner"));
    let other = apart(world, &world.product.for_user(OTHER, "owner")).await;
    let (own, theirs) = (keys(&owner, ACME, 2 * REVOCATIONS).await, keys(&other, OTHER, REVOCATIONS + 1).await);
    let services = keys(&world.server.operator, "system", REVOCATIONS).await;
    let itself = create(&owner, ACME, &key("itself", &[])).await.expect("minted").token;
    let alone = other_tenant(&other, &theirs[REVOCATIONS]).await;

    let flooder = apart(world, &admin).await;
    let flood = Flood::start(loops, move || call(flooder.clone()));
    flood.under_way().await;
    // On connections of their own: what a client queues on one connection is no affair of the server's.
    let (owner, admin) = (apart(world, &owner).await, apart(world, &admin).await);
    let operator = apart(world, &world.server.operator).await;
    let mut beside = Vec::new();
    for n in 0..REVOCATIONS {
        let revocations = [
            (&owner, ACME, &own[2 * n]),
            (&admin, ACME, &own[2 * n + 1]),
            (&other, OTHER, &theirs[n]),
            (&operator, "system", &services[n]),
        ];
        for (caller, account, key_id) in revocations {
            let started = Instant::now();
            let propagation = delete(caller, account, key_id).await.expect("in time");
            assert!(propagation.complete, "{account}: {propagation:?}");
            beside.push(started.elapsed());
        }
    }
    assert!(revoke(&apart(world, &world.server.caller(&itself)).await).await.expect("in time").complete);
    let with_flood = other_tenant(&other, &theirs[REVOCATIONS]).await;
    let answered = flood.stop().await;
    let slowest = beside.iter().max().expect("some");
    println!("{loops} loops, {answered} calls: revocations {slowest:?}; other tenant {alone:?} -> {with_flood:?}");
    assert!(with_flood <= alone * SLOWER_MAX + SLACK, "the other tenant: {alone:?} alone, {with_flood:?} beside");
}

async fn create_once(caller: Caller, validate_only: bool) -> Result<(), Status> {
    let api_key = Some(key("flood", &["incidents.view"]));
    let request = CreateApiKeyRequest { account_id: ACME.into(), api_key, validate_only, ..Default::default() };
    caller.keys().create_api_key(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_the_chain_without_end_delays_no_revocation_and_no_other_tenant() {
    let world = world().await;
    for loops in [16, 64] {
        flooded(&world, loops, |caller| async move {
            let request = VerifyEventChainRequest { account_id: ACME.into(), ..Default::default() };
            caller.events().verify_event_chain(request).await.map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_keys_without_end_delays_no_revocation_and_no_other_tenant() {
    let world = world().await;
    for loops in [16, 64] {
        flooded(&world, loops, |caller| async move {
            let request = ListApiKeysRequest { account_id: ACME.into(), page_size: 1_000, ..Default::default() };
            list(&caller, request).await.map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_events_without_end_delays_no_revocation_and_no_other_tenant() {
    let world = world().await;
    for loops in [16, 64] {
        flooded(&world, loops, |caller| async move {
            let request = ListEventsRequest { account_id: ACME.into(), page_size: 1_000, ..Default::default() };
            caller.events().list_events(request).await.map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minting_without_end_delays_no_revocation_and_no_other_tenant() {
    let world = world().await;
    for loops in [16, 64] {
        flooded(&world, loops, |caller| create_once(caller, false)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validating_without_end_delays_no_revocation_and_no_other_tenant() {
    let world = world().await;
    for loops in [16, 64] {
        flooded(&world, loops, |caller| create_once(caller, true)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_a_dead_token_without_end_delays_no_revocation_and_no_other_tenant() {
    let world = world().await;
    let dead = create(&world.user("owner"), ACME, &key("dead", &[])).await.expect("minted").token;
    let dead = apart(&world, &world.server.caller(&dead)).await;
    assert!(revoke(&dead).await.expect("revoked").complete);
    for loops in [16, 64] {
        let dead = dead.clone();
        flooded(&world, loops, move |_| {
            let dead = dead.clone();
            async move { dead.tokens().revoke_token(RevokeTokenRequest::default()).await.map(drop) }
        })
        .await;
    }
}
