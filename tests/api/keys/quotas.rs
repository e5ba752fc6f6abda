//! K3: how many keys an account and a team may have.

use latchkey::proto::{ApiKey, CreateApiKeyRequest, GetAccountRequest, TeamScope};
use tonic::{Code, Status};

use crate::support::{Caller, Server, World, calls::*, world::*};

const ACCOUNT_MAX: usize = 8;
const TEAM_MAX: usize = 3;

async fn world() -> World {
    let server = Server::start_with(|flags| {
        flags
            .with("api_keys_per_account_max", ACCOUNT_MAX.to_string())
            .with("api_keys_per_team_max", TEAM_MAX.to_string())
    });
    World::on(server.await).await
}

async fn mint(caller: &Caller, content: &ApiKey) -> Result<String, Status> {
    Ok(create(caller, ACME, content).await?.api_key.expect("a key").key_id)
}

fn assert_exhausted<T>(result: Result<T, Status>, quota: &str) {
    assert_refused(result, Code::ResourceExhausted, "QUOTA_EXCEEDED", quota);
}

fn on(team: &str) -> ApiKey {
    team_key("k", &[], &[team], &["secrets.use"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_an_account_has_so_many_keys_not_counting_deleted_ones() {
    let world = world().await;
    let owner = world.user("owner");
    let mut ids = Vec::new();
    for _ in 0..ACCOUNT_MAX {
        ids.push(mint(&owner, &key("k", &[])).await.expect("up to the quota"));
    }
    assert_exhausted(mint(&owner, &key("k", &[])).await, "api_keys_per_account");
    // Judged is judged: also when nothing is to be minted.
    let request = CreateApiKeyRequest {
        account_id: ACME.into(),
        api_key: Some(key("k", &[])),
        validate_only: true,
        ..Default::default()
    };
    assert_exhausted(owner.keys().create_api_key(request).await, "api_keys_per_account");
    // The other account has its own; editing needs no place; a disabled key keeps its.
    create(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.expect("another account");
    update(&owner, ACME, ApiKey { key_id: ids[0].clone(), ..key("renamed", &[]) }, &["name"])
        .await
        .expect("no new key");
    disable(&owner, ACME, &ids[1]).await.unwrap();
    assert_exhausted(mint(&owner, &key("k", &[])).await, "api_keys_per_account");
    // A deleted key frees its place, once.
    for _ in 0..3 {
        delete(&owner, ACME, &ids[1]).await.unwrap();
    }
    mint(&owner, &key("k", &[])).await.expect("one place is free");
    assert_exhausted(mint(&owner, &key("k", &[])).await, "api_keys_per_account");
    let account = world.directory.directory().get_account(GetAccountRequest { account_id: ACME.into() }).await.unwrap();
    assert_eq!(account.into_inner().account.unwrap().api_key_count as usize, ACCOUNT_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_a_key_that_revokes_itself_frees_its_place() {
    let world = world().await;
    let owner = world.user("owner");
    let first = create(&owner, ACME, &key("k", &[])).await.unwrap();
    for _ in 1..ACCOUNT_MAX {
        mint(&owner, &key("k", &[])).await.unwrap();
    }
    assert_exhausted(mint(&owner, &key("k", &[])).await, "api_keys_per_account");
    revoke(&world.server.caller(&first.token)).await.unwrap();
    mint(&owner, &key("k", &[])).await.expect("one place is free");
    assert_exhausted(mint(&owner, &key("k", &[])).await, "api_keys_per_account");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_concurrent_creates_never_exceed_the_quota() {
    let world = world().await;
    let mut tries = tokio::task::JoinSet::new();
    for user in ["owner", "admin"] {
        for _ in 0..ACCOUNT_MAX {
            let caller = world.user(user);
            tries.spawn(async move { mint(&caller, &key("k", &[])).await });
        }
    }
    let (made, refused): (Vec<_>, Vec<_>) = tries.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), ACCOUNT_MAX);
    refused.into_iter().for_each(|refused| assert_exhausted(refused, "api_keys_per_account"));

    // Concurrent deletions of one key free one place, not several.
    let victim = made[0].as_ref().unwrap().clone();
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (caller, victim) = (world.user("owner"), victim.clone());
        tries.spawn(async move { delete(&caller, ACME, &victim).await.map(|_| ()) });
    }
    tries.join_all().await.into_iter().for_each(|deleted| deleted.expect("idempotent"));
    mint(&world.user("owner"), &key("k", &[])).await.expect("one place");
    assert_exhausted(mint(&world.user("owner"), &key("k", &[])).await, "api_keys_per_account");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_a_team_has_so_many_keys_if_the_deployment_says_so() {
    let world = world().await;
    let owner = world.user("owner");
    let mut ids = Vec::new();
    for _ in 0..TEAM_MAX {
        ids.push(mint(&owner, &on("red")).await.expect("up to the quota"));
    }
    assert_exhausted(mint(&owner, &on("red")).await, "api_keys_per_team");
    assert_exhausted(mint(&owner, &team_key("k", &[], &["green", "red"], &["secrets.use"])).await, "api_keys_per_team");
    let green = mint(&owner, &on("green")).await.expect("another team");
    mint(&owner, &key("k", &["secrets.use"])).await.expect("no team");
    // Joining a full team is refused, staying in it is not.
    let scope = |key_id: &str, teams: &[&str], permissions: &[&str]| ApiKey {
        key_id: key_id.into(),
        team_scope: Some(TeamScope { team_ids: strings(teams), permissions: strings(permissions) }),
        ..Default::default()
    };
    let refused = update(&owner, ACME, scope(&green, &["green", "red"], &["secrets.use"]), &["team_scope"]).await;
    assert_exhausted(refused, "api_keys_per_team");
    update(&owner, ACME, scope(&ids[0], &["blue", "red"], &["catalog.edit"]), &["team_scope"])
        .await
        .expect("it was there");
    // Leaving and being deleted make room; being disabled does not.
    disable(&owner, ACME, &ids[1]).await.unwrap();
    assert_exhausted(mint(&owner, &on("red")).await, "api_keys_per_team");
    update(&owner, ACME, scope(&ids[0], &["blue"], &["catalog.edit"]), &["team_scope"]).await.unwrap();
    update(&owner, ACME, scope(&green, &["green", "red"], &["secrets.use"]), &["team_scope"]).await.expect("room");
    assert_exhausted(mint(&owner, &on("red")).await, "api_keys_per_team");
    delete(&owner, ACME, &ids[1]).await.unwrap();
    mint(&owner, &on("red")).await.expect("room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_concurrent_creates_never_exceed_a_teams_quota() {
    let world = world().await;
    let mut tries = tokio::task::JoinSet::new();
    for user in ["owner", "admin", "red_manager"] {
        for _ in 0..TEAM_MAX {
            let caller = world.user(user);
            tries.spawn(async move { mint(&caller, &team_key("k", &[], &["red"], &["catalog.view"])).await });
        }
    }
    let (made, refused): (Vec<_>, Vec<_>) = tries.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), TEAM_MAX);
    refused.into_iter().for_each(|refused| assert_exhausted(refused, "api_keys_per_team"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_authority_and_state_are_judged_before_the_quota() {
    let world = world().await;
    for _ in 0..ACCOUNT_MAX {
        mint(&world.user("owner"), &key("k", &[])).await.unwrap();
    }
    let refused = create(&world.user("standard"), ACME, &key("k", &[])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
    let refused = create(&world.user("owner"), ACME, &key("k", &["no.such"])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.account_permissions");
}
