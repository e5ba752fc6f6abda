//! M4 and M5: a name that confers nothing now comes back with a later catalogue, and is not for the taking meanwhile.

use latchkey::proto::{
    Permission, Role, RoleKind, UpsertRoleRequest, UpsertUserRequest, User, UserState, VerificationOutcome as Outcome,
};

use super::*;
use crate::support::calls;

const DORMANT: &str = "status_pages.publish";

/// Changes a permission. The default roles, which must not name a retired one, lose it; those of accounts do not.
async fn change(world: &World, name: &str, change: impl FnOnce(&mut Permission)) {
    let mut catalogue = calls::catalogue(world).await;
    change(catalogue.permissions.iter_mut().find(|permission| permission.name == name).expect(name));
    catalogue.default_roles.iter_mut().for_each(|role| role.permissions.retain(|held| held != name));
    calls::apply(&world.server.operator, catalogue).await.expect("the catalogue");
}

async fn retire(world: &World, name: &str, retired: bool) {
    change(world, name, |permission| permission.retired = retired).await;
}

/// Adds a permission to the catalogue.
async fn add(world: &World, permission: Permission) {
    let mut catalogue = calls::catalogue(world).await;
    catalogue.permissions.push(permission);
    calls::apply(&world.server.operator, catalogue).await.expect("the catalogue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_a_retired_name_is_not_handed_out_to_who_never_held_it() {
    let world = World::start().await;
    let made = owned(&world, &living(key("k", &[DORMANT, "billing.manage"]), 3_600)).await;
    let later = until(ApiKey::default(), expiry_of(&made.key) + 60);
    let key_manager = as_caller(&world, &key("m", &["api_keys.manage", "billing.manage"])).await;
    let knowing = as_caller(&world, &key("m", &["api_keys.manage", "billing.manage", DORMANT])).await;
    let admin = world.user("admin");
    denied(rotate(&admin, made.id()).await, DORMANT);
    retire(&world, DORMANT, true).await;
    for caller in [&admin, &key_manager] {
        denied(rotate(caller, made.id()).await, DORMANT);
        denied(update(caller, made.id(), &["expire_time"], later.clone()).await, DORMANT);
        denied(update(caller, made.id(), &["expire_time"], ApiKey::default()).await, DORMANT);
        disable(caller, made.id()).await.expect("narrower");
        denied(enable(caller, made.id()).await, DORMANT);
        enable(&knowing, made.id()).await.expect("it holds the name");
    }
    // With what holds it by name, or everything, or operates, it is as ever.
    update(&knowing, made.id(), &["expire_time"], later).await.expect("it holds the name");
    rotate(&knowing, made.id()).await.expect("it holds the name");
    rotate(&world.server.operator, made.id()).await.expect("an operator");
    let rotated = rotate(&world.user("owner"), made.id()).await.expect("everything comes back to the owner");
    // Renaming, and taking the name away, need no more than managing (M7).
    rename(&admin, made.id()).await.expect("adds nothing");
    retire(&world, DORMANT, false).await;
    assert_eq!(world.outcome(&rotated.token, DORMANT, &[]).await, Outcome::Valid);
    retire(&world, DORMANT, true).await;
    update(&admin, made.id(), &["account_permissions"], key("", &["billing.manage"])).await.expect("narrower");
    let rotated = rotate(&admin, made.id()).await.expect("within what it holds");
    retire(&world, DORMANT, false).await;
    assert_eq!(world.outcome(&rotated.token, DORMANT, &[]).await, Outcome::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_a_name_that_is_retired_on_teams_is_held_team_by_team() {
    let world = World::start().await;
    let name = "schedules.edit";
    let made = owned(&world, &team_key("k", &[], &["red", "green"], &[name, "escalations.create"])).await;
    let theirs = owned(&world, &team_key("k", &[], &["red", "green"], &[name, "on_call.edit"])).await;
    make_custom_manager(&world, "standard_manager", &["api_keys.manage", "on_call.edit"]).await;
    let on = |teams: &'static [&'static str]| team_key("m", &["api_keys.manage", "escalations.create"], teams, &[name]);
    let (both, one) = (as_caller(&world, &on(&["red", "green"])).await, as_caller(&world, &on(&["red"])).await);
    let wide = as_caller(&world, &key("m", &["api_keys.manage", "escalations.create", name])).await;
    retire(&world, name, true).await;
    denied(rotate(&one, made.id()).await, "green");
    denied(
        rotate(&as_caller(&world, &key("m", &["api_keys.manage", "escalations.create"])).await, made.id()).await,
        name,
    );
    rotate(&both, made.id()).await.expect("by name on both");
    rotate(&wide, made.id()).await.expect("account-wide covers every team");
    // A key is not moved onto another team with such a name, by any caller.
    let moved = update(&world.user("owner"), made.id(), &["team_scope.team_ids"], scope(&["red", "blue"], &[])).await;
    bad_field(moved, "api_key.team_scope.permissions");
    // A user holds by name what its roles name.
    rotate(&world.user("red_green_manager"), theirs.id()).await.expect("its role there names it");
    denied(rotate(&world.user("standard_manager"), theirs.id()).await, name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_a_name_that_the_catalogue_does_not_know_is_not_handed_out() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &["billing.manage"])).await;
    // Left by a restore of the catalogue alone, or by hand.
    let sql = "UPDATE api_keys SET account_permissions = ARRAY['billing.manage', 'invoices.pay'] WHERE name = 'k'";
    world.server.database.execute_as_owner(sql).await;
    denied(rotate(&world.user("admin"), made.id()).await, "invoices.pay");
    denied(rotate(&world.user("owner"), made.id()).await, "invoices.pay");
    rotate(&world.server.operator, made.id()).await.expect("an operator");
    add(&world, Permission { name: "invoices.pay".into(), ..Default::default() }).await;
    denied(rotate(&world.user("admin"), made.id()).await, "invoices.pay");
    rotate(&world.user("owner"), made.id()).await.expect("the owner holds everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_a_change_of_implications_makes_no_stranger_a_holder() {
    let world = World::start().await;
    // What is retired brings what it implies with it.
    let (boss, implied) = ("settings.manage", "settings.view");
    let made = owned(&world, &key("k", &[boss, "billing.manage"])).await;
    let manager = as_caller(&world, &key("m", &["api_keys.manage", "billing.manage", implied])).await;
    retire(&world, boss, true).await;
    denied(rotate(&manager, made.id()).await, boss);
    // A live name is judged by what it amounts to now.
    change(&world, boss, |permission| {
        permission.retired = false;
        permission.implies.clear();
    })
    .await;
    denied(rotate(&manager, made.id()).await, boss);
    let viewer = owned(&world, &key("k", &[implied])).await;
    rotate(&manager, viewer.id()).await.expect("held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m5_a_manager_is_a_manager_while_the_permission_is_retired() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &["api_keys.manage", "api_keys.rotate_self"])).await;
    let own = world.server.caller(&made.token);
    forbidden(rotate(&own, made.id()).await, "M5");
    retire(&world, "api_keys.manage", true).await;
    forbidden(rotate(&own, made.id()).await, "M5");
    // With the other one retired, nothing rotates itself (M6).
    let plain = owned_by_operator(&world, &key("k", &["api_keys.rotate_self"])).await;
    let own = world.server.caller(&plain.token);
    rotate(&own, plain.id()).await.expect("it may rotate itself");
    let plain = owned_by_operator(&world, &key("k", &["api_keys.rotate_self", "billing.manage"])).await;
    let own = world.server.caller(&plain.token);
    retire(&world, "api_keys.rotate_self", true).await;
    denied(rotate(&own, plain.id()).await, "api_keys.rotate_self");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_a_key_that_rotates_itself_keeps_its_own_dormant_names() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &["api_keys.rotate_self", DORMANT])).await;
    retire(&world, DORMANT, true).await;
    let rotated = rotate(&world.server.caller(&made.token), made.id()).await.expect("its own names");
    retire(&world, DORMANT, false).await;
    assert_eq!(world.outcome(&rotated.token, DORMANT, &[]).await, Outcome::Valid);
}

/// Without `api_keys.manage` in the catalogue only an operator manages keys.
async fn owned_by_operator(world: &World, key: &ApiKey) -> Minted {
    mint(&world.server.operator, key).await.expect("an operator")
}

/// A user of `acme` whose custom role holds these account-wide.
async fn make_custom_manager(world: &World, user_id: &str, permissions: &[&str]) {
    let role = Role {
        role_id: user_id.into(),
        kind: RoleKind::Custom.into(),
        permissions: strings(permissions),
        ..Default::default()
    };
    let request = UpsertRoleRequest { account_id: ACME.into(), role: Some(role), ..Default::default() };
    world.directory.directory().upsert_role(request).await.expect("a role");
    let user = User {
        user_id: user_id.into(),
        state: UserState::Active.into(),
        base_role_id: "standard".into(),
        custom_role_ids: strings(&[user_id]),
        ..Default::default()
    };
    let request = UpsertUserRequest { account_id: ACME.into(), user: Some(user), ..Default::default() };
    world.directory.directory().upsert_user(request).await.expect("a user");
}
