//! A1-A6: who calls, and what they hold.

use latchkey::proto::{
    AwaitPropagationRequest, GetIdentityRequest, GetIdentityResponse, ListEventsRequest, RevokeTokenRequest, Role,
    RoleKind, SuspendAccountRequest, TeamRole, UpsertRoleRequest, UpsertUserRequest, User, UserState,
    VerificationOutcome as Outcome, VerifyTokenRequest, VerifyTokensRequest,
};
use tonic::{Request, Status};

use crate::{
    calls::*,
    support::{Caller, World, world::*},
};

async fn identity(caller: &Caller) -> Result<GetIdentityResponse, Status> {
    Ok(caller.tokens().get_identity(GetIdentityRequest {}).await?.into_inner())
}

async fn put_user(world: &World, user: User) {
    let request =
        UpsertUserRequest { account_id: ACME.into(), user: Some(user), validate_only: false, ..Default::default() };
    world.directory.directory().upsert_user(request).await.expect("a user");
}

async fn put_role(world: &World, role: Role) {
    let request =
        UpsertRoleRequest { account_id: ACME.into(), role: Some(role), validate_only: false, ..Default::default() };
    world.directory.directory().upsert_role(request).await.expect("a role");
}

fn custom_role(id: &str, permissions: &[&str]) -> Role {
    let kind = RoleKind::Custom.into();
    Role { role_id: id.into(), kind, permissions: strings(permissions), ..Default::default() }
}

fn user(id: &str, base: &str) -> User {
    User { user_id: id.into(), state: UserState::Active.into(), base_role_id: base.into(), ..Default::default() }
}

async fn suspend(world: &World, account: &str) {
    let request = SuspendAccountRequest { account_id: account.into(), ..Default::default() };
    world.directory.directory().suspend_account(request).await.expect("suspended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_user_holds_the_union_of_base_custom_and_team_roles() {
    let world = World::start().await;
    put_role(&world, custom_role("biller", &["billing.manage"])).await;
    let team_role = |team: &str, role: &str| TeamRole { team_id: team.into(), role_id: role.into() };
    put_user(
        &world,
        User {
            custom_role_ids: strings(&["biller"]),
            team_roles: vec![team_role("red", "member"), team_role("red", "manager"), team_role("green", "member")],
            ..user("u", "standard")
        },
    )
    .await;
    let found = identity(&world.user("u")).await.expect("an identity");
    let holds = |name: &str| found.account_permissions.iter().any(|held| held == name);
    for held in ["incidents.view", "workflows.edit", "workflows.view", "billing.manage"] {
        assert!(holds(held), "{held}: {found:?}");
    }
    for not_held in ["schedules.edit", "escalations.create", "api_keys.manage", "settings.manage"] {
        assert!(!holds(not_held), "{not_held}: {found:?}");
    }
    let on_team = |team: &str, name: &str| {
        let team = found.team_permissions.iter().find(|on| on.team_id == team).expect("a team");
        team.permissions.iter().any(|held| held == name)
    };
    // Both roles on red, one on green, and the account-wide ones on either.
    for (team, name, held) in [
        ("red", "escalations.create", true),
        ("red", "schedules.view", true),
        ("red", "billing.manage", true),
        ("green", "escalations.create", true),
        ("green", "schedules.view", false),
        ("green", "billing.manage", true),
    ] {
        assert_eq!(on_team(team, name), held, "{team} {name}");
    }
    assert!(found.team_permissions.iter().all(|on| on.team_id != "blue"), "{found:?}");
    // What they amount to: red keys within what is held on red.
    let caller = world.user("u");
    mint(&caller, &team_key("k", &[], &["red"], &["schedules.edit", "escalations.create"])).await.expect("held on red");
    denied(mint(&caller, &team_key("k", &[], &["green"], &["escalations.create"])).await, "api_keys.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_what_a_role_loses_its_users_lose_at_once() {
    let world = World::start().await;
    put_role(&world, custom_role("extra", &["postmortems.manage"])).await;
    put_user(&world, User { custom_role_ids: strings(&["extra"]), ..user("u", "admin") }).await;
    mint(&world.user("u"), &key("k", &["postmortems.manage"])).await.expect("held through the custom role");
    put_role(&world, custom_role("extra", &[])).await;
    denied(mint(&world.user("u"), &key("k", &["postmortems.manage"])).await, "postmortems.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_in_a_suspended_account_users_and_keys_may_call_only_revoke_token() {
    let world = World::start().await;
    let manager = mint(&world.user("owner"), &key("manager", &["api_keys.manage"])).await.expect("a key");
    let caller = world.server.caller(&manager.token);
    assert_eq!(list(&caller).await.expect("it manages").len(), 1);
    suspend(&world, ACME).await;
    for refused in [&caller, &world.user("owner")] {
        unauthenticated(list(refused).await, "ACCOUNT_SUSPENDED");
        unauthenticated(identity(refused).await, "ACCOUNT_SUSPENDED");
        unauthenticated(mint(refused, &key("k", &[])).await, "ACCOUNT_SUSPENDED");
        let events = ListEventsRequest { account_id: ACME.into(), ..Default::default() };
        unauthenticated(refused.events().list_events(events).await, "ACCOUNT_SUSPENDED");
    }
    let await_propagation = caller.events().await_propagation(AwaitPropagationRequest::default()).await;
    unauthenticated(await_propagation, "ACCOUNT_SUSPENDED");
    assert_eq!(world.verify(&manager.token, None).await.outcome(), Outcome::AccountSuspended);
    // Another account is not touched.
    let other = world.product.for_user(OTHER, "owner");
    mint_in(&other, OTHER, &key("k", &[])).await.expect("account `other` is active");
    // Nor is who is not of the account.
    let by_operator = mint(&world.server.operator, &key("k", &[])).await.expect("an operator is of account `system`");
    disable(&world.server.operator, by_operator.id()).await.expect("and may act here");
    world.make_user(ACME, "new", "standard", &[], UserState::Active).await;
    caller
        .tokens()
        .revoke_token(RevokeTokenRequest { ..Default::default() })
        .await
        .expect("revoking is always possible");
    assert_eq!(world.verify(&manager.token, None).await.outcome(), Outcome::Deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_each_system_permission_opens_its_own_door_and_no_other() {
    let world = World::start().await;
    let token = mint(&world.user("owner"), &key("k", &[])).await.expect("a key").token;
    let verify = |caller: &Caller| {
        let request = VerifyTokenRequest { token: token.clone(), ..Default::default() };
        let mut client = caller.tokens();
        async move { client.verify_token(request).await }
    };
    let everything = |caller: &Caller| {
        let mut client = caller.events();
        async move { client.list_events(ListEventsRequest::default()).await }
    };
    let suspend = |caller: &Caller| {
        let mut client = caller.directory();
        async move { client.suspend_account(SuspendAccountRequest { account_id: OTHER.into(), ..Default::default() }).await }
    };
    verify(&world.verifier).await.expect("system.verify verifies");
    everything(&world.auditor).await.expect("system.events reads the log");
    identity(&world.user("owner")).await.expect("system.impersonate acts for a user");
    suspend(&world.directory).await.expect("system.directory writes accounts");
    for caller in [&world.directory, &world.product, &world.auditor] {
        denied(verify(caller).await, "system.verify");
    }
    for caller in [&world.verifier, &world.directory, &world.product] {
        denied(everything(caller).await, "system.events");
    }
    for caller in [&world.verifier, &world.product, &world.auditor] {
        // Another account is not theirs to know of.
        not_found(suspend(caller).await);
        // They manage no keys, wherever.
        not_found(list(caller).await);
    }
    for caller in [&world.verifier, &world.directory, &world.auditor] {
        denied(identity(&caller.for_user(ACME, "owner")).await, "system.impersonate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_break_glass_reaches_every_account_and_is_always_named_in_the_log() {
    let world = World::start().await;
    let before = head(&world).await;
    let made = mint(&world.server.operator, &key("k", &["billing.manage"])).await.expect("an operator reaches acme");
    rename(&world.server.operator, made.id()).await.expect("and manages its keys");
    disable(&world.server.operator, made.id()).await.expect("and disables them");
    enable(&world.server.operator, made.id()).await.expect("and enables them");
    rotate(&world.server.operator, made.id()).await.expect("and rotates them");
    suspend_as(&world.server.operator, OTHER).await;
    delete(&world.server.operator, made.id()).await.expect("and deletes them");
    let events = events_after(&world, before).await;
    assert_eq!(events.len(), 7);
    for event in &events {
        assert!(event.break_glass, "{event:?}");
        assert_eq!(event.actor.as_ref().expect("an actor").account_id, "system");
    }
    let before = head(&world).await;
    mint(&world.user("owner"), &key("k", &[])).await.expect("an owner needs no break-glass");
    assert!(!only_event_after(&world, before).await.break_glass);
}

async fn suspend_as(caller: &Caller, account: &str) {
    let request = SuspendAccountRequest { account_id: account.into(), ..Default::default() };
    caller.directory().suspend_account(request).await.expect("suspended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_operate_is_of_no_use_in_a_verification() {
    let world = World::start().await;
    let outcome = world.outcome(&world.server.operator.token, "billing.manage", &[]).await;
    assert_eq!(outcome, Outcome::PermissionDenied);
    assert_eq!(world.verify(&world.server.operator.token, None).await.outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_a_callers_authority_ends_at_its_own_account() {
    let world = World::start().await;
    let theirs = world.product.for_user(OTHER, "owner");
    let ours = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let their_key = mint_in(&theirs, OTHER, &key("m", &["api_keys.manage"])).await.expect("a key");
    for stranger in [&theirs, &world.server.caller(&their_key.token)] {
        not_found(mint(stranger, &key("k", &[])).await);
        not_found(list(stranger).await);
        for key_id in [ours.id(), "key_01h2xcejqtf2nbrexx3vqjhp41"] {
            not_found(get(stranger, key_id).await);
            not_found(rename(stranger, key_id).await);
            not_found(rotate(stranger, key_id).await);
            not_found(disable(stranger, key_id).await);
            not_found(enable(stranger, key_id).await);
            not_found(delete(stranger, key_id).await);
        }
        // An account that never was answers the same.
        not_found(mint_in(stranger, "no-such-account", &key("k", &[])).await);
        let events = ListEventsRequest { account_id: ACME.into(), ..Default::default() };
        not_found(stranger.events().list_events(events).await);
    }
    // A key is found only in its own account.
    not_found(rotate_with(&theirs, OTHER, ours.id(), None).await);
    rename(&world.user("owner"), ours.id()).await.expect("in its own account it is managed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_system_permissions_are_held_only_in_account_system() {
    let world = World::start().await;
    for name in ["system.verify", "system.directory", "system.impersonate", "system.events", "system.report_leaks"] {
        mint_in(&world.server.operator, "system", &key("service", &[name])).await.expect(name);
        bad_field(mint(&world.server.operator, &key("k", &[name])).await, "api_key.account_permissions");
        bad_field(
            mint(&world.server.operator, &team_key("k", &[], &["red"], &[name])).await,
            "api_key.team_scope.permissions",
        );
        // The Owner role is everything but these.
        denied(mint(&world.user("owner"), &key("k", &[name])).await, name);
        let role = custom_role("sneaky", &[name]);
        let request =
            UpsertRoleRequest { account_id: ACME.into(), role: Some(role), validate_only: false, ..Default::default() };
        bad_field(world.directory.directory().upsert_role(request).await, "role.permissions");
    }
    let owner = identity(&world.user("owner")).await.expect("an identity");
    assert!(owner.account_permissions.iter().all(|name| !name.starts_with("system.")), "{owner:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_operate_is_never_minted_granted_or_rotated_by_rpc() {
    let world = World::start().await;
    let operator = &world.server.operator;
    let own = identity(operator).await.expect("an identity").api_key.expect("its key").key_id;
    forbidden(mint_in(operator, "system", &key("second", &["system.operate"])).await, "A4");
    let service = mint_in(operator, "system", &key("service", &["system.verify"])).await.expect("a service's key");
    let grant = latchkey::proto::UpdateApiKeyRequest {
        account_id: "system".into(),
        api_key: Some(latchkey::proto::ApiKey { key_id: service.id().into(), ..key("", &["system.operate"]) }),
        update_mask: Some(prost_types::FieldMask { paths: strings(&["account_permissions"]) }),
        validate_only: false,
        ..Default::default()
    };
    forbidden(operator.keys().update_api_key(grant).await, "A4");
    forbidden(rotate_with(operator, "system", &own, None).await, "A4");
    rotate_with(operator, "system", service.id(), None).await.expect("any other key of account system rotates");
    // No key that falls short of it can hand it out either.
    let manager = mint_in(operator, "system", &key("m", &["api_keys.manage", "system.verify"])).await.expect("a key");
    forbidden(mint_in(&world.server.caller(&manager.token), "system", &key("k", &["system.operate"])).await, "A4");
    mint_in(&world.server.caller(&manager.token), "system", &key("k", &["system.verify"]))
        .await
        .expect("what it holds");
    denied(
        mint_in(&world.server.caller(&manager.token), "system", &key("k", &["system.events"])).await,
        "system.events",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_on_behalf_of_replaces_the_services_authority_and_adds_nothing() {
    let world = World::start().await;
    // A service that can do everything has, for a user, what the user has.
    let service = mint_in(
        &world.server.operator,
        "system",
        &key("s", &["system.impersonate", "system.events", "api_keys.manage"]),
    )
    .await
    .expect("a key");
    let service = world.server.caller(&service.token);
    service.events().list_events(ListEventsRequest::default()).await.expect("for itself it reads the log");
    let for_standard = service.for_user(ACME, "standard");
    denied(list(&for_standard).await, "api_keys.manage");
    let own = ListEventsRequest { account_id: ACME.into(), ..Default::default() };
    denied(for_standard.events().list_events(own.clone()).await, "api_keys.manage");
    let for_operator = world.server.operator.for_user(ACME, "standard");
    denied(mint(&for_operator, &key("k", &[])).await, "api_keys.manage");
    // And a service without any authority has all that the user has.
    let minted = mint(&world.user("owner"), &key("k", &["billing.manage"])).await.expect("the owner may");
    let creator = minted.key.creator.expect("a creator");
    assert_eq!((creator.account_id.as_str(), creator.user_id.as_str()), (ACME, "owner"));
    world.user("owner").events().list_events(own).await.expect("an account's own events");
    let found = identity(&world.user("red_manager")).await.expect("an identity");
    assert_eq!((found.account_id.as_str(), found.user_id.as_str()), (ACME, "red_manager"));
    assert!(found.api_key.is_none());
    assert!(found.grantable_account_permissions.is_empty());
    assert_eq!(found.grantable_team_permissions.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_an_unknown_or_deactivated_user_is_unauthenticated() {
    let world = World::start().await;
    list(&world.user("owner")).await.expect("an active user acts");
    for (account, user) in
        [(ACME, "gone"), (ACME, "nobody"), (OTHER, "admin"), ("no-such-account", "owner"), ("system", "owner")]
    {
        let caller = world.product.for_user(account, user);
        unauthenticated(mint_in(&caller, account, &key("k", &[])).await, "BAD_USER");
        unauthenticated(identity(&caller).await, "BAD_USER");
    }
    put_user(&world, User { state: UserState::Deactivated.into(), ..user("owner", "owner") }).await;
    unauthenticated(list(&world.user("owner")).await, "BAD_USER");
    put_user(&world, user("owner", "owner")).await;
    list(&world.user("owner")).await.expect("active again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_on_behalf_of_is_refused_wherever_a_user_cannot_act() {
    const ENTRY: &str = "latchkey-on-behalf-of";
    let world = World::start().await;
    // With every system permission: it is the header that is refused.
    let caller = world.server.operator.for_user(ACME, "owner");
    let token = "lk_x".to_owned();
    let request = VerifyTokenRequest { token: token.clone(), ..Default::default() };
    bad_metadata(caller.tokens().verify_token(request.clone()).await, ENTRY);
    bad_metadata(caller.tokens().verify_tokens(VerifyTokensRequest::default()).await, ENTRY);
    let stream = futures_util::stream::iter([latchkey::proto::StreamVerifyTokensRequest::default()]);
    bad_metadata(caller.tokens().stream_verify_tokens(stream).await, ENTRY);
    bad_metadata(caller.tokens().revoke_token(RevokeTokenRequest { ..Default::default() }).await, ENTRY);
    bad_metadata(
        caller.tokens().report_leaked_token(latchkey::proto::ReportLeakedTokenRequest::default()).await,
        ENTRY,
    );
    bad_metadata(
        caller
            .directory()
            .suspend_account(SuspendAccountRequest { account_id: OTHER.into(), ..Default::default() })
            .await,
        ENTRY,
    );
    bad_metadata(caller.directory().get_catalogue(latchkey::proto::GetCatalogueRequest {}).await, ENTRY);
    bad_metadata(caller.events().await_propagation(AwaitPropagationRequest::default()).await, ENTRY);
    // Not an account's own events, but everybody's.
    bad_metadata(caller.events().list_events(ListEventsRequest::default()).await, ENTRY);
    assert!(world.verify(&world.server.operator.token, None).await.outcome() == Outcome::Valid, "nothing was revoked");
    identity(&caller).await.expect("GetIdentity takes it");
    list(&caller).await.expect("so does key management");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_a_malformed_or_repeated_header_is_refused() {
    let world = World::start().await;
    for bad in ["acme", "acme/users/", "/users/owner", "acme/user/owner", "acme/users/owner/", "a b/users/owner", "x"] {
        let caller = Caller { on_behalf_of: Some(bad.into()), ..world.product.clone() };
        bad_metadata(list(&caller).await, "latchkey-on-behalf-of");
        bad_metadata(identity(&caller).await, "latchkey-on-behalf-of");
    }
    let send = |entries: Vec<(&'static str, String)>| {
        let mut request = Request::new(GetIdentityRequest {});
        for (name, value) in entries {
            request.metadata_mut().append(name, value.parse().expect("ASCII"));
        }
        let channel = world.server.channel.clone();
        async move { latchkey::proto::token_service_client::TokenServiceClient::new(channel).get_identity(request).await }
    };
    let bearer = || ("authorization", crate::support::bearer(&world.product.token));
    let user = || ("latchkey-on-behalf-of", "acme/users/owner".to_owned());
    send(vec![bearer(), user()]).await.expect("each once is what is asked for");
    bad_metadata(send(vec![bearer(), bearer(), user()]).await, "authorization");
    bad_metadata(send(vec![bearer(), user(), user()]).await, "latchkey-on-behalf-of");
    unauthenticated(send(vec![user()]).await, "BAD_CREDENTIALS");
}
