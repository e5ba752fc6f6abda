//! Keys that no caller can have.

use latchkey::proto::{
    ApiKey, CreateApiKeyRequest, ListApiKeysRequest, RotateApiKeyRequest, TeamScope, UpdateApiKeyRequest,
    UpsertTeamRequest, api_key::Expiry,
};
use prost_types::{Duration, FieldMask, Timestamp};
use tonic::{Code, Status};

use super::*;
use crate::support::world::*;

fn with_expiry(expiry: Expiry) -> ApiKey {
    ApiKey { expiry: Some(expiry), ..key("k", &[]) }
}

fn ttl(seconds: i64, nanos: i32) -> ApiKey {
    with_expiry(Expiry::Ttl(Duration { seconds, nanos }))
}

fn at(seconds: i64, nanos: i32) -> ApiKey {
    with_expiry(Expiry::ExpireTime(Timestamp { seconds, nanos }))
}

fn named(name: &str) -> ApiKey {
    key(name, &[])
}

fn commented(comment: &str) -> ApiKey {
    ApiKey { comment: comment.into(), ..key("k", &[]) }
}

fn metadata(pairs: impl IntoIterator<Item = (String, String)>) -> ApiKey {
    ApiKey { metadata: pairs.into_iter().collect(), ..key("k", &[]) }
}

fn pairs(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|i| (i.to_string(), String::new()))
}

/// Every wrong key, and the field that is wrong with it.
fn wrong_keys() -> Vec<(ApiKey, &'static str)> {
    let scope = |teams: &[&str], permissions: &[&str]| team_key("k", &[], teams, permissions);
    vec![
        (named(""), "api_key.name"),
        (named("  \u{3000}\t"), "api_key.name"),
        (named(&"é".repeat(201)), "api_key.name"),
        (named("a\0b"), "api_key.name"),
        (named("a\nb"), "api_key.name"),
        (named("a\u{1b}[31m"), "api_key.name"),
        (named("a\u{85}"), "api_key.name"),
        (commented("a\0b"), "api_key.comment"),
        (commented("a\u{8}b"), "api_key.comment"),
        (commented(&"é".repeat(5_001)), "api_key.comment"),
        (metadata(pairs(51)), "api_key.metadata"),
        (metadata([("k".into(), "v".repeat(16 * 1024))]), "api_key.metadata"),
        (metadata([("k".repeat(16 * 1024), "v".into())]), "api_key.metadata"),
        (metadata([(String::new(), "v".into())]), "api_key.metadata"),
        (metadata([("k".into(), "a\0b".into())]), "api_key.metadata"),
        (metadata([("a\0b".into(), "v".into())]), "api_key.metadata"),
        (key("k", &["no.such.permission"]), "api_key.account_permissions"),
        (key("k", &["billing.manage", "BAD"]), "api_key.account_permissions[1]"),
        (key("k", &[""]), "api_key.account_permissions[0]"),
        (key("k", &["billing.manage", "billing.manage"]), "api_key.account_permissions[1]"),
        (scope(&["red"], &["incidents.view"]), "api_key.team_scope.permissions"),
        (scope(&["red"], &["no.such.permission"]), "api_key.team_scope.permissions"),
        (scope(&["red"], &["secrets.use", ""]), "api_key.team_scope.permissions[1]"),
        (scope(&["red"], &[]), "api_key.team_scope.permissions"),
        (scope(&[], &["secrets.use"]), "api_key.team_scope.team_ids"),
        (scope(&[], &[]), "api_key.team_scope.team_ids"),
        (scope(&["nowhere"], &["secrets.use"]), "api_key.team_scope.team_ids"),
        (scope(&["red", "a b"], &["secrets.use"]), "api_key.team_scope.team_ids[1]"),
        (scope(&["red", "red"], &["secrets.use"]), "api_key.team_scope.team_ids[1]"),
        // A team of another account.
        (scope(&["crimson"], &["secrets.use"]), "api_key.team_scope.team_ids"),
        (ttl(0, 0), "api_key.ttl"),
        (ttl(0, 999), "api_key.ttl"),
        (ttl(-1, 0), "api_key.ttl"),
        (ttl(0, -1), "api_key.ttl"),
        (ttl(1, -1), "api_key.ttl"),
        (ttl(i64::MAX, 0), "api_key.ttl"),
        (ttl(1, i32::MAX), "api_key.ttl"),
        (at(0, 0), "api_key.expire_time"),
        (at(1_000_000_000, 0), "api_key.expire_time"),
        (at(i64::MAX, 0), "api_key.expire_time"),
        (at(i64::MIN, 0), "api_key.expire_time"),
        (at(4_000_000_000, -1), "api_key.expire_time"),
        (at(4_000_000_000, 1_000_000_000), "api_key.expire_time"),
    ]
}

async fn world_with_a_foreign_team() -> World {
    let world = World::start().await;
    let team = latchkey::proto::Team { team_id: "crimson".into(), ..Default::default() };
    let request =
        UpsertTeamRequest { account_id: OTHER.into(), team: Some(team), validate_only: false, ..Default::default() };
    world.directory.directory().upsert_team(request).await.expect("a team of account `other`");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_not_minted_and_the_field_is_named() {
    let world = world_with_a_foreign_team().await;
    let unchanged = Unchanged::since_now(&world).await;
    for (wrong, field) in wrong_keys() {
        bad_field(mint(&world.user("owner"), &wrong).await, field);
        let validate = CreateApiKeyRequest {
            account_id: ACME.into(),
            api_key: Some(wrong),
            validate_only: true,
            ..Default::default()
        };
        bad_field(world.user("owner").keys().create_api_key(validate).await, field);
    }
    unchanged.still(&world).await;
    for good in [
        named(&"é".repeat(200)),
        commented("line\nline\r\n\ttab"),
        commented(&"é".repeat(5_000)),
        metadata(pairs(50)),
        metadata([("k".into(), "v".repeat(16 * 1024 - 1))]),
        ttl(0, 1_000_000),
        at(4_000_000_000, 999_999_999),
        ttl(315_576_000_000, 0),
    ] {
        mint(&world.user("owner"), &good).await.expect("at the bound");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_edit_changes_nothing_and_the_field_is_named() {
    let world = world_with_a_foreign_team().await;
    let owner = world.user("owner");
    let made = team_key("k", &["billing.manage"], &["blue"], &["schedules.edit"]);
    let made = mint(&owner, &made).await.expect("a key");
    let unchanged = Unchanged::since_now(&world).await;
    for (wrong, field) in wrong_keys() {
        // The name is good except where it is what is wrong.
        bad_field(update(&owner, made.id(), &["*"], wrong).await, field);
    }
    for (teams, names, path, field) in [
        (&["red"][..], &[][..], "team_scope.permissions", "api_key.team_scope.permissions"),
        (&[], &["secrets.use"], "team_scope.team_ids", "api_key.team_scope.team_ids"),
        (&["nowhere"], &[], "team_scope.team_ids", "api_key.team_scope.team_ids"),
        (&[], &["incidents.view"], "team_scope.permissions", "api_key.team_scope.permissions"),
    ] {
        bad_field(update(&owner, made.id(), &[path], team_key("", &[], teams, names)).await, field);
    }
    for path in
        ["nmae", "", "key_id", "state", "etag", "account_id", "team_scope.", "metadata.k", "api_key.name", "NAME"]
    {
        bad_field(update(&owner, made.id(), &["name", path], named("new")).await, "update_mask.paths[1]");
    }
    bad_field(update(&owner, made.id(), &["expire_time"], ttl(60, 0)).await, "update_mask.paths[0]");
    bad_field(update(&owner, made.id(), &["ttl"], at(4_000_000_000, 0)).await, "update_mask.paths[0]");
    unchanged.still(&world).await;
    assert_eq!(get(&owner, made.id()).await.expect("a key"), made.key);
    // Neither is no expiry; an absent mask is every populated field.
    let request = UpdateApiKeyRequest {
        account_id: ACME.into(),
        api_key: Some(ApiKey { key_id: made.id().into(), ..ttl(3_600, 0) }),
        ..Default::default()
    };
    let edited = owner.keys().update_api_key(request).await.expect("edited").into_inner().api_key.expect("a key");
    assert!(edited.expiry.is_some() && edited.account_permissions == made.key.account_permissions);
    let cleared = update(&owner, made.id(), &["ttl"], key("", &[])).await.expect("cleared");
    assert_eq!(cleared.expiry, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_grace_period_is_refused() {
    let world = World::start().await;
    let owner = world.user("owner");
    let made = mint(&owner, &key("k", &[])).await.expect("a key");
    let unchanged = Unchanged::since_now(&world).await;
    for (seconds, nanos) in [(-1, 0), (0, -1), (3_600, 1_000), (3_601, 0), (i64::MAX, 0), (i64::MIN, 0), (1, -1)] {
        let request = RotateApiKeyRequest {
            account_id: ACME.into(),
            key_id: made.id().into(),
            grace_period: Some(Duration { seconds, nanos }),
            ..Default::default()
        };
        bad_field(owner.keys().rotate_api_key(request).await, "grace_period");
    }
    unchanged.still(&world).await;
    rotate_with(&owner, ACME, made.id(), Some(3_600)).await.expect("an hour");
    rotate_with(&owner, ACME, made.id(), Some(0)).await.expect("none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_a_request_id_is_refused_rather_than_ignored() {
    let world = World::start().await;
    let owner = world.user("owner");
    let made = mint(&owner, &key("k", &[])).await.expect("a key");
    let unchanged = Unchanged::since_now(&world).await;
    let request_id = || "6b1f0f0e-6d1e-4f57-9d0f-0a3f8f6c2a11".to_owned();
    let create = CreateApiKeyRequest {
        account_id: ACME.into(),
        api_key: Some(key("k", &[])),
        request_id: request_id(),
        ..Default::default()
    };
    refused(owner.keys().create_api_key(create).await, Code::Unimplemented, "NOT_IMPLEMENTED", "request_id");
    let rotate = RotateApiKeyRequest {
        account_id: ACME.into(),
        key_id: made.id().into(),
        request_id: request_id(),
        ..Default::default()
    };
    refused(owner.keys().rotate_api_key(rotate).await, Code::Unimplemented, "NOT_IMPLEMENTED", "request_id");
    unchanged.still(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_filter_of_keys_is_refused() {
    let world = World::start().await;
    let ask = |change: fn(&mut ListApiKeysRequest)| {
        let mut request = ListApiKeysRequest { account_id: ACME.into(), ..Default::default() };
        change(&mut request);
        let mut client = world.user("owner").keys();
        async move { client.list_api_keys(request).await.map(drop) }
    };
    let unspecified: Result<(), Status> = ask(|request| request.states = vec![1, 0]).await;
    bad_field(unspecified, "states[1]");
    bad_field(ask(|request| request.states = vec![99]).await, "states[0]");
    bad_field(ask(|request| request.states = vec![-1]).await, "states[0]");
    bad_field(ask(|request| request.states = vec![3]).await, "states[0]");
    bad_field(ask(|request| request.permission = "NO".into()).await, "permission");
    ask(|request| (request.states, request.show_deleted) = (vec![1, 2, 3], true)).await.expect("all states");
    ask(|request| request.permission = "no.such.permission".into()).await.expect("nothing has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_of_other_arguments_is_refused() {
    let world = World::start().await;
    for i in 0..3 {
        mint(&world.user("owner"), &team_key(&i.to_string(), &[], &["red"], &["secrets.use"])).await.expect("a key");
    }
    let request = ListApiKeysRequest { account_id: ACME.into(), page_size: 1, ..Default::default() };
    let mut client = world.user("owner").keys();
    let page_token = client.list_api_keys(request.clone()).await.expect("a page").into_inner().next_page_token;
    let next = ListApiKeysRequest { page_token, ..request };
    for other in [
        ListApiKeysRequest { show_deleted: true, ..next.clone() },
        ListApiKeysRequest { team_id: "red".into(), ..next.clone() },
        ListApiKeysRequest { permission: "secrets.use".into(), ..next.clone() },
        ListApiKeysRequest { states: vec![1], ..next.clone() },
    ] {
        bad_field(client.list_api_keys(other).await, "page_token");
    }
    let other_size = ListApiKeysRequest { page_size: 2, ..next };
    assert_eq!(client.list_api_keys(other_size).await.expect("a page").into_inner().api_keys.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_key_can_have_is_refused() {
    let world = World::start().await;
    let unchanged = Unchanged::since_now(&world).await;
    let many = |count: usize, prefix: &str| (0..count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
    let scope = |teams: Vec<String>, permissions: Vec<String>| ApiKey {
        team_scope: Some(TeamScope { team_ids: teams, permissions }),
        ..key("k", &[])
    };
    let teams = scope(many(1_001, "t"), strings(&["secrets.use"]));
    bad_field(mint(&world.user("owner"), &teams).await, "api_key.team_scope.team_ids");
    let permissions = scope(strings(&["red"]), many(1_001, "p"));
    bad_field(mint(&world.user("owner"), &permissions).await, "api_key.team_scope.permissions");
    let account = ApiKey { account_permissions: many(1_001, "p"), ..key("k", &[]) };
    bad_field(mint(&world.user("owner"), &account).await, "api_key.account_permissions");
    // Hundreds of wrong fields: an answer that fits a trailer.
    let all_wrong = ApiKey { account_permissions: vec!["BAD".into(); 500], ..key("k", &[]) };
    bad_field(mint(&world.user("owner"), &all_wrong).await, "api_key.account_permissions[0]");
    let mask = FieldMask { paths: many(5_000, "x") };
    let request = UpdateApiKeyRequest {
        account_id: ACME.into(),
        api_key: Some(ApiKey { key_id: "key_01h2xcejqtf2nbrexx3vqjhp41".into(), ..Default::default() }),
        update_mask: Some(mask),
        validate_only: false,
        ..Default::default()
    };
    bad_field(world.user("owner").keys().update_api_key(request).await, "update_mask.paths");
    unchanged.still(&world).await;
}
