//! M8: authenticate → syntax → visibility → authority → state → etag → quota. Each test makes two or
//! more of them apply; the earlier one answers.

use latchkey::proto::{ApiKey, DisableApiKeyRequest, RotateApiKeyRequest};
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::support::Server;

const STALE: &str = "1-1";

async fn rotate_stale(caller: &Caller, key_id: &str) -> Result<(), Status> {
    let request = RotateApiKeyRequest {
        account_id: ACME.into(),
        key_id: key_id.into(),
        etag: STALE.into(),
        ..Default::default()
    };
    caller.keys().rotate_api_key(request).await.map(drop)
}

async fn disable_stale(caller: &Caller, key_id: &str) -> Result<(), Status> {
    let request = DisableApiKeyRequest {
        account_id: ACME.into(),
        key_id: key_id.into(),
        etag: STALE.into(),
        ..Default::default()
    };
    caller.keys().disable_api_key(request).await.map(drop)
}

fn stale_edit(change: ApiKey) -> ApiKey {
    ApiKey { etag: STALE.into(), ..change }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_authentication_comes_before_syntax_and_syntax_before_visibility() {
    let world = World::start().await;
    let caller = world.server.caller("not-a-token");
    unauthenticated(rename(&caller, "not-a-key").await, "BAD_CREDENTIALS");
    bad_field(rename(&world.user("standard"), "not-a-key").await, "api_key.key_id");
    let invisible = owned(&world, &key("k", &[])).await;
    let too_long = ApiKey { name: "n".repeat(201), ..Default::default() };
    bad_field(update(&world.user("red_manager"), invisible.id(), &["name"], too_long).await, "api_key.name");
    not_found(rename(&world.user("red_manager"), invisible.id()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_visibility_comes_before_authority_state_and_etag() {
    let world = World::start().await;
    let made = owned(&world, &team_key("k", &["billing.manage"], &["green"], &["secrets.use"])).await;
    disable(&world.user("owner"), made.id()).await.expect("off");
    for stranger in [&world.user("red_manager"), &world.user("standard"), &world.product.for_user(OTHER, "owner")] {
        not_found(rotate_stale(stranger, made.id()).await);
        not_found(disable_stale(stranger, made.id()).await);
        let edit = stale_edit(key("", &["no.such.permission", "security_settings.manage"]));
        not_found(update(stranger, made.id(), &["account_permissions"], edit).await);
        // What is not there answers the same.
        not_found(rotate_stale(stranger, "key_01h2xcejqtf2nbrexx3vqjhp41").await);
    }
    wrong_state(rotate_stale(&world.user("owner"), made.id()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_authority_comes_before_state_and_etag() {
    let world = World::start().await;
    let made = owned(&world, &team_key("k", &[], &["red", "green"], &["schedules.edit"])).await;
    disable(&world.user("owner"), made.id()).await.expect("off");
    let viewer = world.user("red_manager");
    denied(rotate_stale(&viewer, made.id()).await, "green");
    denied(disable_stale(&viewer, made.id()).await, "green");
    // Neither an unknown permission, nor half a team scope, nor an unknown team tells it anything.
    let mask = &["team_scope.permissions"];
    denied(update(&viewer, made.id(), mask, stale_edit(scope(&[], &["no.such"]))).await, "green");
    denied(update(&viewer, made.id(), mask, stale_edit(scope(&[], &[]))).await, "green");
    let teams = &["team_scope.team_ids"];
    denied(update(&viewer, made.id(), teams, stale_edit(scope(&[], &[]))).await, "green");
    denied(update(&viewer, made.id(), teams, stale_edit(scope(&["no-such-team"], &[]))).await, "green");
    bad_field(
        update(&world.user("owner"), made.id(), teams, stale_edit(scope(&[], &[]))).await,
        "api_key.team_scope.team_ids",
    );
    // For a manager of the key too: what it lacks comes before what is unknown.
    let edit = stale_edit(key("", &["no.such.permission", "security_settings.manage"]));
    let admin = world.user("admin");
    denied(update(&admin, made.id(), &["account_permissions"], edit).await, "security_settings.manage");
    delete(&world.user("owner"), made.id()).await.expect("gone");
    let edit = stale_edit(key("", &["security_settings.manage"]));
    denied(update(&admin, made.id(), &["account_permissions"], edit).await, "security_settings.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_state_comes_before_the_etag() {
    let world = World::start().await;
    let admin = world.user("admin");
    let made = owned(&world, &key("k", &[])).await;
    stale(rotate_stale(&admin, made.id()).await);
    stale(disable_stale(&admin, made.id()).await);
    let unknown = stale_edit(key("", &["no.such.permission"]));
    let unknown = update(&admin, made.id(), &["account_permissions"], unknown).await;
    bad_field(unknown, "api_key.account_permissions");
    stale(update(&admin, made.id(), &["name"], stale_edit(key("n", &[]))).await);
    disable(&admin, made.id()).await.expect("off");
    wrong_state(rotate_stale(&admin, made.id()).await);
    delete(&admin, made.id()).await.expect("gone");
    wrong_state(disable_stale(&admin, made.id()).await);
    wrong_state(rotate_stale(&admin, made.id()).await);
    wrong_state(update(&admin, made.id(), &["name"], stale_edit(key("n", &[]))).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_the_quota_comes_last() {
    let limited = |flags: latchkey::settings::Flags| {
        flags.with("api_keys_per_account_max", "6").with("api_keys_per_team_max", "1")
    };
    let world = World::on(Server::start_with(limited).await).await;
    let admin = world.user("admin");
    mint(&admin, &team_key("first", &[], &["red"], &["schedules.edit"])).await.expect("the first of red");
    let second = mint(&admin, &key("second", &[])).await.expect("no team");
    let join = team_key("", &[], &["red"], &["schedules.edit"]);
    let mask = &["team_scope"];
    let beyond = team_key("", &[], &["red"], &["secrets.use"]);
    denied(update(&admin, second.id(), mask, stale_edit(beyond.clone())).await, "secrets.use");
    let unknown = team_key("", &[], &["red", "no-such-team"], &["schedules.edit"]);
    bad_field(update(&admin, second.id(), mask, stale_edit(unknown.clone())).await, "api_key.team_scope.team_ids");
    stale(update(&admin, second.id(), mask, stale_edit(join.clone())).await);
    let full = |result| refused(result, Code::ResourceExhausted, "QUOTA_EXCEEDED", "api_keys_per_team");
    full(update(&admin, second.id(), mask, join.clone()).await.map(drop));
    full(mint(&admin, &join_named(&join)).await.map(drop));
    for i in 2..6 {
        mint(&admin, &key(&i.to_string(), &[])).await.expect("within the quota");
    }
    denied(mint(&admin, &key("k", &["security_settings.manage"])).await, "security_settings.manage");
    denied(mint(&admin, &join_named(&beyond)).await, "secrets.use");
    bad_field(mint(&admin, &key("k", &["no.such.permission"])).await, "api_key.account_permissions");
    let full = mint(&admin, &key("k", &[])).await.map(drop);
    refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED", "api_keys_per_account");
}

fn join_named(key: &ApiKey) -> ApiKey {
    ApiKey { name: "joins".into(), ..key.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_a_team_that_is_not_managed_answers_the_same_whether_or_not_it_exists() {
    let world = World::start().await;
    let manager = world.user("red_manager");
    let made = mint(&manager, &team_key("k", &[], &["red"], &["schedules.edit"])).await.expect("its own team");
    // Everything that is answered, with the team's name made equal.
    let seen = |result: Result<(), Status>, team: &str| {
        let status = result.expect_err("refused");
        let info = status.get_error_details().error_info().cloned().expect("every error carries ErrorInfo");
        let mut metadata: Vec<_> =
            info.metadata.into_iter().map(|(name, value)| (name, value.replace(team, "TEAM"))).collect();
        metadata.sort();
        (status.code(), status.message().replace(team, "TEAM"), info.reason, metadata)
    };
    let mut answers = Vec::new();
    for team in ["green", "no-such-team"] {
        let created = mint(&manager, &team_key("k", &[], &[team], &["schedules.edit"])).await.map(drop);
        let moved = update(&manager, made.id(), &["team_scope.team_ids"], scope(&["red", team], &[])).await.map(drop);
        let request =
            latchkey::proto::ListApiKeysRequest { account_id: ACME.into(), team_id: team.into(), ..Default::default() };
        let listed = manager.keys().list_api_keys(request).await.map(drop);
        answers.push([created, moved, listed].map(|result| seen(result, team)));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].iter().all(|(code, ..)| *code == Code::PermissionDenied), "{answers:?}");
}
