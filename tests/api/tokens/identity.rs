//! GetIdentity: who the bearer is and what it may do and grant; ReportLeakedToken.

use latchkey::proto::{
    GetIdentityRequest, GetIdentityResponse, ReportLeakedTokenRequest, TeamPermissions, VerificationOutcome as Outcome,
};
use tonic::{Code, Status};

use crate::support::{Caller, World, calls::*, world::*};

async fn identity(caller: &Caller) -> Result<GetIdentityResponse, Status> {
    Ok(caller.tokens().get_identity(GetIdentityRequest {}).await?.into_inner())
}

fn on(team: &str, permissions: &[&str]) -> TeamPermissions {
    TeamPermissions { team_id: team.into(), permissions: strings(permissions) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_identity_shows_the_bearers_key_and_its_closed_permissions_per_scope() {
    let world = World::start().await;
    let owner = world.user("owner");
    let granted = team_key("k", &["incidents.edit"], &["red", "green"], &["schedules.edit"]);
    let minted = create(&owner, ACME, &granted).await.unwrap();
    let found = identity(&world.server.caller(&minted.token)).await.unwrap();
    assert_eq!((found.account_id.as_str(), found.user_id.as_str()), (ACME, ""));
    let stored = get(&owner, ACME, &minted.api_key.unwrap().key_id).await.unwrap();
    let mut shown = found.api_key.unwrap();
    (shown.last_used_time, shown.current_token_last_used_time) =
        (stored.last_used_time, stored.current_token_last_used_time);
    assert_eq!(shown, stored);
    // In the catalogue's order, with what is implied; on a team with what is held account-wide.
    let account = ["incidents.view", "incidents.create", "incidents.edit"];
    let team = ["schedules.view", "schedules.edit", "incidents.view", "incidents.create", "incidents.edit"];
    assert_eq!(found.account_permissions, strings(&account));
    assert_eq!(found.team_permissions, [on("green", &team), on("red", &team)]);
    // It manages nothing, so it can grant nothing.
    assert_eq!((found.grantable_account_permissions, found.grantable_team_permissions), (vec![], vec![]));
    assert!(found.revision.unwrap().number > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_identity_needs_no_permission_but_a_live_token() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    let bearer = world.server.caller(&minted.token);
    assert_eq!(identity(&bearer).await.unwrap().account_permissions, [""; 0]);
    suspend(&world, ACME).await;
    assert_refused(identity(&bearer).await, Code::Unauthenticated, "ACCOUNT_SUSPENDED", "");
    resume(&world, ACME).await;
    disable(&owner, ACME, &id).await.unwrap();
    assert_refused(identity(&bearer).await, Code::Unauthenticated, "BAD_CREDENTIALS", "DISABLED");
    delete(&owner, ACME, &id).await.unwrap();
    assert_refused(identity(&bearer).await, Code::Unauthenticated, "BAD_CREDENTIALS", "DELETED");
    assert_refused(identity(&world.server.caller("x")).await, Code::Unauthenticated, "BAD_CREDENTIALS", "MALFORMED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_identity_on_behalf_of_shows_the_users_authority_and_what_it_may_grant() {
    let world = World::start().await;
    let found = identity(&world.user("red_manager")).await.unwrap();
    assert_eq!((found.account_id.as_str(), found.user_id.as_str()), (ACME, "red_manager"));
    assert_eq!(found.api_key, None, "the service's key is not the user's");
    let standard = ["workflows.view", "workflows.edit", "incidents.view", "incidents.create", "settings.view"];
    assert_eq!(found.account_permissions, strings(&standard));
    let scopable = [
        "catalog.view",
        "catalog.edit",
        "schedules.view",
        "schedules.edit",
        "on_call.view",
        "on_call.edit",
        "api_keys.manage",
        "workflows.view",
        "workflows.edit",
    ];
    let on_red = [&scopable[..], &["incidents.view", "incidents.create", "settings.view"]].concat();
    assert_eq!(found.team_permissions, [on("red", &on_red)]);
    assert_eq!(found.grantable_account_permissions, [""; 0], "a team's manager makes team-scoped keys");
    assert_eq!(found.grantable_team_permissions, [on("red", &scopable)]);
    // What it offers is accepted, and nothing more.
    let offered: Vec<_> = found.grantable_team_permissions[0].permissions.iter().map(String::as_str).collect();
    let manager = world.user("red_manager");
    create(&manager, ACME, &team_key("k", &[], &["red"], &offered)).await.expect("all that is offered");
    let refused = create(&manager, ACME, &team_key("k", &[], &["red"], &["secrets.use"])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "secrets.use");

    let standard = identity(&world.user("standard")).await.unwrap();
    assert_eq!(standard.grantable_account_permissions.len() + standard.grantable_team_permissions.len(), 0);
    let admin = identity(&world.user("admin")).await.unwrap();
    assert_eq!(admin.grantable_account_permissions, admin.account_permissions);
    assert!(!admin.account_permissions.contains(&"secrets.use".to_owned()));
    assert_refused(identity(&world.user("gone")).await, Code::Unauthenticated, "BAD_USER", "");
    let refused = identity(&world.verifier.for_user(ACME, "owner")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.impersonate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_identity_offers_a_managing_key_no_managing() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["api_keys.manage", "settings.manage"])).await.unwrap();
    let found = identity(&world.server.caller(&minted.token)).await.unwrap();
    assert_eq!(found.account_permissions, strings(&["api_keys.manage", "settings.view", "settings.manage"]));
    assert_eq!(found.grantable_account_permissions, strings(&["settings.view", "settings.manage"]), "M5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_leaked_token_is_not_offered_by_this_release_and_ends_nothing() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    let request = ReportLeakedTokenRequest { token: minted.token.clone(), source: "a paste".into() };
    let refused = world.server.operator.tokens().report_leaked_token(request).await;
    assert_refused(refused, Code::Unimplemented, "NOT_IMPLEMENTED", "");
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Valid);
}
