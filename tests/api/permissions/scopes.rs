//! P2-P5: closure, scopes, and the empty set.

use latchkey::proto::{
    ApiKey, DeleteTeamRequest, Permission, Role, RoleKind, TeamScope, UpsertRoleRequest, UserState,
    VerificationOutcome as Outcome, VerifyTokenRequest,
};
use tonic::Code;

use crate::support::{World, calls::*, world::*};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_verification_compares_closed_sets() {
    let world = World::start().await;
    let mut next = catalogue(&world).await;
    let chain = |name: &str, implies: &[&str]| Permission {
        name: name.into(),
        implies: strings(implies),
        ..Default::default()
    };
    // A chain, and a circle: each is closed.
    next.permissions.extend([chain("c.top", &["c.middle"]), chain("c.middle", &["c.bottom"]), chain("c.bottom", &[])]);
    next.permissions.extend([chain("o.one", &["o.two"]), chain("o.two", &["o.one"])]);
    apply(&world.server.operator, next).await.expect("applied");
    let minted = create(&world.user("owner"), ACME, &key("k", &["c.top", "o.one"])).await.unwrap();
    for name in ["c.top", "c.middle", "c.bottom", "o.one", "o.two"] {
        assert_eq!(world.outcome(&minted.token, name, &[]).await, Outcome::Valid, "{name}");
    }
    let answer = world.verify(&minted.token, None).await;
    assert_eq!(answer.account_permissions, strings(&["c.top", "c.middle", "c.bottom", "o.one", "o.two"]));
    let middle = create(&world.user("owner"), ACME, &key("k", &["c.middle"])).await.unwrap();
    assert_eq!(world.outcome(&middle.token, "c.bottom", &[]).await, Outcome::Valid);
    assert_eq!(world.outcome(&middle.token, "c.top", &[]).await, Outcome::PermissionDenied, "implies has a direction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_confinement_compares_closed_sets() {
    let world = World::start().await;
    // `schedules.edit`, which a red manager holds, comes with `schedules.view`, which no role of theirs names.
    let manager = world.user("red_manager");
    create(&manager, ACME, &team_key("k", &[], &["red"], &["schedules.view"])).await.expect("implied is held");
    let refused = create(&manager, ACME, &team_key("k", &[], &["red"], &["secrets.use"])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "secrets.use");
    // The other way round: who holds what is implied does not hold what implies it.
    let role = Role {
        role_id: "viewer".into(),
        kind: RoleKind::Base.into(),
        permissions: strings(&["api_keys.manage", "settings.view"]),
        ..Default::default()
    };
    let request =
        UpsertRoleRequest { account_id: ACME.into(), role: Some(role), validate_only: false, ..Default::default() };
    world.directory.directory().upsert_role(request).await.unwrap();
    world.make_user(ACME, "viewer", "viewer", &[], UserState::Active).await;
    create(&world.user("viewer"), ACME, &key("k", &["settings.view"])).await.expect("held");
    let refused = create(&world.user("viewer"), ACME, &key("k", &["settings.manage"])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "settings.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_an_account_level_permission_holds_for_every_team_and_a_team_scoped_one_for_its_teams() {
    let world = World::start().await;
    let minted = create(
        &world.user("admin"),
        ACME,
        &team_key("k", &["incidents.create"], &["red", "green"], &["schedules.edit"]),
    )
    .await
    .expect("an admin holds all of it");
    assert_eq!(world.outcome(&minted.token, "incidents.create", &[]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "incidents.create", &["blue"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &["red"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "schedules.view", &["green"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &["blue"]).await, Outcome::PermissionDenied);
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &[]).await, Outcome::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_who_holds_account_wide_grants_on_any_team_and_who_holds_on_a_team_only_there() {
    let world = World::start().await;
    let on = |teams: &[&str]| team_key("k", &[], teams, &["schedules.edit"]);
    create(&world.user("admin"), ACME, &on(&["red", "green", "blue"])).await.expect("account-wide covers every team");
    create(&world.user("red_manager"), ACME, &on(&["red"])).await.expect("held there");
    for teams in [&["blue"][..], &["red", "blue"]] {
        let refused = create(&world.user("red_manager"), ACME, &on(teams)).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "blue");
    }
    let refused = create(&world.user("red_manager"), ACME, &key("k", &["schedules.edit"])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_key_with_nothing_proves_authenticity_and_no_more() {
    let world = World::start().await;
    let minted = create(&world.user("admin"), ACME, &key("nothing", &[])).await.expect("K1: or none");
    let answer = world.verify(&minted.token, None).await;
    assert_eq!(answer.outcome(), Outcome::Valid);
    assert_eq!((answer.account_permissions.len(), answer.team_scope), (0, None));
    for permission in catalogue(&world).await.permissions {
        for teams in [&[][..], &["red"]] {
            let outcome = world.outcome(&minted.token, &permission.name, teams).await;
            assert_eq!(outcome, Outcome::PermissionDenied, "{} {teams:?}", permission.name);
        }
    }
    let bearer = world.server.caller(&minted.token);
    let refused = list(&bearer, latchkey::proto::ListApiKeysRequest { account_id: ACME.into(), ..Default::default() });
    assert_refused(refused.await, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
    let request = VerifyTokenRequest { token: minted.token.clone(), ..Default::default() };
    let refused = bearer.tokens().verify_token(request).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.verify");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_an_empty_list_is_never_everything() {
    let world = World::start().await;
    let owner = world.user("owner");
    // A scope without teams is not every team; one without permissions not every permission.
    for (teams, permissions, field) in
        [(&[][..], &["schedules.edit"][..], "team_scope.team_ids"), (&["red"], &[], "team_scope.permissions")]
    {
        let refused = create(&owner, ACME, &team_key("k", &[], teams, permissions)).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    }
    // A requirement without a permission is not met by all.
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let empty = requirement(ACME, "", &[]);
    let request = VerifyTokenRequest { token: minted.token.clone(), requirement: Some(empty), min_revision: None };
    let refused = world.verifier.tokens().verify_token(request).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "requirement.permission");
    // A role without permissions gives nothing.
    let role = Role { role_id: "none".into(), kind: RoleKind::Base.into(), ..Default::default() };
    let request =
        UpsertRoleRequest { account_id: ACME.into(), role: Some(role), validate_only: false, ..Default::default() };
    world.directory.directory().upsert_role(request).await.unwrap();
    world.make_user(ACME, "nobody", "none", &[], UserState::Active).await;
    let refused = create(&world.user("nobody"), ACME, &key("k", &[])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_scope_that_lost_its_teams_grants_nothing() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &team_key("k", &[], &["red"], &["schedules.edit"])).await.unwrap();
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &["red"]).await, Outcome::Valid);
    let request =
        DeleteTeamRequest { account_id: ACME.into(), team_id: "red".into(), etag: String::new(), ..Default::default() };
    world.directory.directory().delete_team(request).await.unwrap();
    for teams in [&["red"][..], &["green"], &[]] {
        assert_eq!(world.outcome(&minted.token, "schedules.edit", teams).await, Outcome::PermissionDenied);
    }
    let answer = world.verify(&minted.token, None).await;
    assert_eq!((answer.outcome(), answer.team_scope), (Outcome::Valid, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_only_team_scopable_permissions_go_on_teams() {
    let world = World::start().await;
    let owner = world.user("owner");
    let refused = create(&owner, ACME, &team_key("k", &[], &["red"], &["schedules.edit", "incidents.view"])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.permissions");
    let minted =
        create(&owner, ACME, &team_key("k", &["incidents.view"], &["red"], &["schedules.edit"])).await.unwrap();
    let key_id = minted.api_key.unwrap().key_id;
    let scope = |permissions: &[&str]| ApiKey {
        key_id: key_id.clone(),
        team_scope: Some(TeamScope { team_ids: strings(&["red"]), permissions: strings(permissions) }),
        ..Default::default()
    };
    for paths in [&["team_scope"][..], &["team_scope.permissions"]] {
        let refused = update(&owner, ACME, scope(&["schedules.edit", "billing.manage"]), paths).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.permissions");
        update(&owner, ACME, scope(&["schedules.edit", "catalog.edit"]), paths).await.expect("team-scopable");
    }
    // A team role holds none either (A5).
    let role = |permission: &str| UpsertRoleRequest {
        account_id: ACME.into(),
        role: Some(Role {
            role_id: "r".into(),
            kind: RoleKind::Team.into(),
            permissions: strings(&[permission]),
            ..Default::default()
        }),
        validate_only: false,
        ..Default::default()
    };
    let refused = world.directory.directory().upsert_role(role("incidents.view")).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "role.permissions");
    world.directory.directory().upsert_role(role("on_call.view")).await.expect("team-scopable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_what_a_team_scopable_permission_implies_is_team_scopable() {
    let world = World::start().await;
    let imply = |name: &'static str, implied: &'static str| {
        change_permission(&world, name, move |permission| permission.implies = strings(&[implied]))
    };
    let refused = imply("secrets.manage", "incidents.view").await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", ".implies[0]");
    imply("secrets.manage", "heartbeats.ping").await.expect("both are");
    // An account-level one may imply either kind.
    imply("settings.manage", "heartbeats.ping").await.expect("account-wide covers every team");
    imply("settings.manage", "settings.view").await.expect("neither is");
    // And what is implied cannot lose it.
    let refused = change_permission(&world, "heartbeats.ping", |permission| permission.team_scopable = false).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", ".implies[0]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_no_permission_implies_key_management_or_a_system_permission() {
    let world = World::start().await;
    let before = head(&world).await;
    for implied in
        ["api_keys.manage", "api_keys.rotate_self", "system.verify", "system.operate", "system.new", "no.such"]
    {
        for name in ["settings.manage", "secrets.manage"] {
            let refused = change_permission(&world, name, |p| p.implies = strings(&[implied])).await;
            assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", ".implies[0]");
        }
    }
    assert_eq!(head(&world).await, before);
    // They may imply others themselves.
    change_permission(&world, "api_keys.manage", |p| p.implies = strings(&["heartbeats.ping"])).await.expect("allowed");
}
