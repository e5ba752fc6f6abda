//! V1 on one server: a verification sent after a mutation's answer sees it. Each kind of mutation
//! many times, with the token hot in memory before.

use latchkey::proto::{
    ApiKey, DeleteTeamRequest, DeleteUserRequest, Role, RoleKind, Team, TeamScope, UpsertRoleRequest,
    UpsertTeamRequest, UserState, VerificationOutcome as Outcome, api_key::Expiry,
};

use crate::support::{World, calls::*, world::*};

const ROUNDS: usize = 20;

/// A key of account permission `incidents.view` and of `secrets.use` on `red`, verified until hot.
async fn hot(world: &World) -> (String, String) {
    let granted = team_key("k", &["incidents.view"], &["red"], &["secrets.use"]);
    let minted = create(&world.user("owner"), ACME, &granted).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
        assert_eq!(world.outcome(&minted.token, "secrets.use", &["red"]).await, Outcome::Valid);
    }
    (minted.api_key.unwrap().key_id, minted.token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_minted_token_verifies_at_once_even_if_it_was_unknown_before() {
    let world = World::start().await;
    for _ in 0..ROUNDS {
        let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
        assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_disabling_enabling_and_editing_are_seen_at_once() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, token) = hot(&world).await;
    let edit = |names: &[&str]| ApiKey { key_id: id.clone(), ..key("k", names) };
    for round in 0..ROUNDS {
        disable(&owner, ACME, &id).await.unwrap();
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Disabled, "{round}");
        enable(&owner, ACME, &id).await.unwrap();
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Valid, "{round}");
        update(&owner, ACME, edit(&[]), &["account_permissions"]).await.unwrap();
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::PermissionDenied, "{round}");
        update(&owner, ACME, edit(&["incidents.view"]), &["account_permissions"]).await.unwrap();
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Valid, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_deletion_and_revocation_are_seen_at_once() {
    let world = World::start().await;
    for round in 0..ROUNDS {
        let (id, token) = hot(&world).await;
        if round % 2 == 0 {
            delete(&world.user("owner"), ACME, &id).await.unwrap();
        } else {
            revoke(&world.server.caller(&token)).await.unwrap();
        }
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Deleted, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_rotation_without_grace_is_seen_at_once() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, mut token) = hot(&world).await;
    for round in 0..ROUNDS {
        let next = rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap().token;
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Rotated, "{round}");
        assert_eq!(world.outcome(&next, "incidents.view", &[]).await, Outcome::Valid, "{round}");
        token = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_change_of_teams_or_expiry_is_seen_at_once() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, token) = hot(&world).await;
    let on = |teams: &[&str]| ApiKey {
        key_id: id.clone(),
        team_scope: Some(TeamScope { team_ids: strings(teams), permissions: strings(&["secrets.use"]) }),
        ..Default::default()
    };
    for round in 0..ROUNDS {
        update(&owner, ACME, on(&["green"]), &["team_scope"]).await.unwrap();
        assert_eq!(world.outcome(&token, "secrets.use", &["red"]).await, Outcome::PermissionDenied, "{round}");
        assert_eq!(world.outcome(&token, "secrets.use", &["green"]).await, Outcome::Valid, "{round}");
        update(&owner, ACME, on(&["red"]), &["team_scope"]).await.unwrap();
        assert_eq!(world.outcome(&token, "secrets.use", &["red"]).await, Outcome::Valid, "{round}");
        let expiry = Some(Expiry::Ttl(prost_types::Duration { seconds: 0, nanos: 1_000 }));
        let ending = ApiKey { key_id: id.clone(), expiry, ..Default::default() };
        update(&owner, ACME, ending.clone(), &["ttl"]).await.unwrap();
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Expired, "{round}");
        let endless = ApiKey { expiry: None, ..ending };
        update(&owner, ACME, endless, &["expire_time"]).await.unwrap();
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Valid, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_suspension_is_seen_at_once() {
    let world = World::start().await;
    let (_, token) = hot(&world).await;
    for round in 0..ROUNDS {
        suspend(&world, ACME).await;
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::AccountSuspended, "{round}");
        resume(&world, ACME).await;
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Valid, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_teams_deletion_is_seen_at_once() {
    let world = World::start().await;
    let directory = &world.directory;
    for round in 0..ROUNDS {
        let (_, token) = hot(&world).await;
        let request = DeleteTeamRequest {
            account_id: ACME.into(),
            team_id: "red".into(),
            etag: String::new(),
            ..Default::default()
        };
        directory.directory().delete_team(request).await.unwrap();
        assert_eq!(world.outcome(&token, "secrets.use", &["red"]).await, Outcome::PermissionDenied, "{round}");
        let team = Team { team_id: "red".into(), ..Default::default() };
        let request =
            UpsertTeamRequest { account_id: ACME.into(), team: Some(team), validate_only: false, ..Default::default() };
        directory.directory().upsert_team(request).await.unwrap();
        // A re-created team inherits nothing (A5).
        assert_eq!(world.outcome(&token, "secrets.use", &["red"]).await, Outcome::PermissionDenied, "{round}");
        assert_eq!(world.outcome(&token, "incidents.view", &[]).await, Outcome::Valid, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_change_of_the_catalogue_is_seen_at_once() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["heartbeats.ping"])).await.unwrap();
    for round in 0..ROUNDS {
        assert_eq!(world.outcome(&minted.token, "heartbeats.ping", &[]).await, Outcome::Valid, "{round}");
        change_permission(&world, "heartbeats.ping", |permission| permission.retired = true).await.unwrap();
        assert_eq!(world.outcome(&minted.token, "heartbeats.ping", &[]).await, Outcome::PermissionDenied, "{round}");
        change_permission(&world, "heartbeats.ping", |permission| permission.retired = false).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_callers_own_lost_authority_is_seen_at_once() {
    let world = World::start().await;
    let owner = world.user("owner");
    for round in 0..ROUNDS {
        // A manager's key loses its authority; a user loses its role.
        let minted = create(&owner, ACME, &key("manager", &["api_keys.manage"])).await.unwrap();
        let (id, bearer) = (minted.api_key.unwrap().key_id, world.server.caller(&minted.token));
        get(&bearer, ACME, &id).await.expect("a manager");
        update(&owner, ACME, ApiKey { key_id: id.clone(), ..key("k", &[]) }, &["account_permissions"]).await.unwrap();
        get(&bearer, ACME, &id).await.expect_err("a manager no more");
        disable(&owner, ACME, &id).await.unwrap();
        let refused = get(&bearer, ACME, &id).await.expect_err("disabled");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{round}");

        world.make_user(ACME, "temp", "admin", &[], UserState::Active).await;
        get(&world.user("temp"), ACME, &id).await.expect("an admin");
        world.make_user(ACME, "temp", "standard", &[], UserState::Active).await;
        get(&world.user("temp"), ACME, &id).await.expect_err("an admin no more");
        let request = DeleteUserRequest {
            account_id: ACME.into(),
            user_id: "temp".into(),
            etag: String::new(),
            ..Default::default()
        };
        world.directory.directory().delete_user(request).await.unwrap();
        let refused = get(&world.user("temp"), ACME, &id).await.expect_err("gone");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_narrowed_role_is_seen_at_once() {
    let world = World::start().await;
    let role = |permissions: &[&str]| UpsertRoleRequest {
        account_id: ACME.into(),
        role: Some(Role {
            role_id: "shifting".into(),
            kind: RoleKind::Base.into(),
            permissions: strings(permissions),
            ..Default::default()
        }),
        validate_only: false,
        ..Default::default()
    };
    world.directory.directory().upsert_role(role(&["api_keys.manage", "incidents.view"])).await.unwrap();
    world.make_user(ACME, "shifty", "shifting", &[], UserState::Active).await;
    let shifty = world.user("shifty");
    for round in 0..ROUNDS {
        create(&shifty, ACME, &key("k", &["incidents.view"])).await.expect("it holds that");
        world.directory.directory().upsert_role(role(&["api_keys.manage"])).await.unwrap();
        let refused = create(&shifty, ACME, &key("k", &["incidents.view"])).await.map(|_| ()).expect_err("no more");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{round}");
        world.directory.directory().upsert_role(role(&["api_keys.manage", "incidents.view"])).await.unwrap();
    }
}
