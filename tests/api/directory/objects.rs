//! Teams, roles and users: replaced whole, deleted with all that hangs on them.

use latchkey::proto::{ApiKeyState, EventKind, VerificationOutcome as Outcome};
use tonic::Code;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_an_unchanged_upsert_appends_no_event_and_keeps_the_etag() {
    let world = World::start().await;
    let directory = &world.directory;
    let before = head(&world).await;
    let a_team = put_team(directory, team("t", "T")).await.expect("a team");
    let a_role = put_role(directory, role("r", RoleKind::Custom, &["billing.manage"])).await.expect("a role");
    let a_user =
        User { custom_role_ids: strings(&["r"]), team_roles: vec![on_team("t", "member")], ..user("u", "owner") };
    let a_user = put_user(directory, a_user).await.expect("a user");
    let made = [EventKind::TeamCreated, EventKind::RoleCreated, EventKind::UserCreated];
    assert_eq!(kinds_after(&world, before).await, made);
    let before = head(&world).await;
    assert_eq!(put_team(directory, a_team.clone()).await.expect("the same"), a_team);
    assert_eq!(put_role(directory, a_role.clone()).await.expect("the same"), a_role);
    assert_eq!(put_user(directory, a_user.clone()).await.expect("the same"), a_user);
    assert_eq!(put_teams(directory, vec![a_team.clone()]).await.expect("the same"), vec![a_team.clone()]);
    assert_eq!(put_users(directory, vec![a_user.clone()]).await.expect("the same"), vec![a_user.clone()]);
    assert_eq!(head(&world).await, before);
    assert_eq!(get_team(directory, "t").await.expect("a team"), a_team);
    assert_eq!(get_role(directory, "r").await.expect("a role"), a_role);
    assert_eq!(get_user(directory, "u").await.expect("a user"), a_user);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_an_upsert_replaces_the_whole_object() {
    let world = World::start().await;
    let directory = &world.directory;
    put_role(directory, role("r", RoleKind::Custom, &["billing.manage", "settings.view"])).await.expect("a role");
    let full = User {
        display_name: "U".into(),
        custom_role_ids: strings(&["r"]),
        team_roles: vec![on_team("red", "manager"), on_team("green", "member")],
        ..user("u", "owner")
    };
    put_user(directory, full).await.expect("a user");
    let before = head(&world).await;
    let less = User { team_roles: vec![on_team("red", "member")], ..user("u", "standard") };
    let stored = put_user(directory, less).await.expect("replaced");
    assert_eq!((stored.display_name.as_str(), stored.base_role_id.as_str()), ("", "standard"));
    assert!(stored.custom_role_ids.is_empty());
    assert_eq!(stored.team_roles, [on_team("red", "member")]);
    let event = only_event_after(&world, before).await;
    assert_eq!(change(&event, "team_roles").2, strings(&["red/member"]));
    assert_eq!(change(&event, "team_roles").3, strings(&["green/member", "red/manager"]));
    assert_eq!(change(&event, "custom_role_ids").3, strings(&["r"]));
    let narrowed = put_role(directory, role("r", RoleKind::Custom, &["settings.view"])).await.expect("replaced");
    assert_eq!(narrowed.permissions, strings(&["settings.view"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_stale_etag_aborts_for_batches_too() {
    let world = World::start().await;
    let directory = &world.directory;
    let old = put_team(directory, team("t", "1")).await.expect("a team");
    let new = put_team(directory, Team { display_name: "2".into(), ..old.clone() }).await.expect("its etag is current");
    let a_role = put_role(directory, role("r", RoleKind::Base, &[])).await.expect("a role");
    put_role(directory, Role { display_name: "R".into(), ..a_role.clone() }).await.expect("its etag is current");
    let a_user = put_user(directory, user("u", "owner")).await.expect("a user");
    put_user(directory, User { display_name: "U".into(), ..a_user.clone() }).await.expect("its etag is current");
    let before = head(&world).await;
    stale(put_team(directory, Team { display_name: "3".into(), ..old.clone() }).await);
    stale(put_role(directory, Role { display_name: "RR".into(), ..a_role.clone() }).await);
    stale(put_user(directory, User { display_name: "UU".into(), ..a_user.clone() }).await);
    // An etag for what is not there is stale too.
    stale(put_team(directory, Team { etag: new.etag.clone(), ..team("nowhere", "") }).await);
    stale(put_teams(directory, vec![team("fresh", ""), Team { display_name: "3".into(), ..old.clone() }]).await);
    stale(put_users(directory, vec![user("fresh", "owner"), a_user.clone()]).await);
    stale(delete_team(directory, "t", &old.etag).await);
    stale(delete_role(directory, "r", &a_role.etag).await);
    stale(delete_user(directory, "u", &a_user.etag).await);
    assert_eq!(head(&world).await, before);
    // The retry of what succeeded carries the etag from before it: nothing changes, and it is no conflict.
    assert_eq!(put_team(directory, Team { etag: old.etag, ..new.clone() }).await.expect("unchanged"), new);
    let again = Role { display_name: "R".into(), ..a_role.clone() };
    assert_ne!(put_role(directory, again).await.expect("unchanged").etag, a_role.etag);
    let again = User { display_name: "U".into(), ..a_user.clone() };
    assert_ne!(put_user(directory, again.clone()).await.expect("unchanged").etag, a_user.etag);
    assert_eq!(put_users(directory, vec![again]).await.expect("unchanged").len(), 1);
    assert_eq!(head(&world).await, before);
    delete_team(directory, "t", &new.etag).await.expect("the current etag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_deleted_team_is_taken_from_keys_and_users_in_one_event() {
    let world = World::start().await;
    let (directory, owner) = (&world.directory, world.user("owner"));
    let only = mint(&owner, &team_key("only", &["billing.manage"], &["red"], &["secrets.use"])).await.expect("a key");
    let last = mint(&owner, &team_key("last", &[], &["red"], &["secrets.use"])).await.expect("a key");
    let shared = mint(&owner, &team_key("shared", &[], &["red", "green"], &["secrets.use"])).await.expect("a key");
    let untouched = mint(&owner, &team_key("untouched", &[], &["green"], &["secrets.use"])).await.expect("a key");
    let off = mint(&owner, &team_key("off", &[], &["red"], &["secrets.use"])).await.expect("a key");
    disable(&owner, off.id()).await.expect("off");
    let manager_before = get_user(directory, "red_green_manager").await.expect("a user");
    let before = head(&world).await;
    delete_team(directory, "red", "").await.expect("deleted");

    let event = only_event_after(&world, before).await;
    assert_eq!(event.kind(), EventKind::TeamDeleted);
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let keys = [&only, &last, &shared, &off].map(|made| made.id().to_owned()).to_vec();
    assert_eq!(sorted(event.affected_key_ids.clone()), sorted(keys));
    assert_eq!(change(&event, "users").3, strings(&["red_green_manager", "red_manager"]));

    // Who loses the last team loses the team scope, and nothing else.
    for made in [&only, &last, &off] {
        let key = get(&owner, made.id()).await.expect("a key");
        assert_eq!(key.team_scope, None);
        assert_eq!(key.account_permissions, made.key.account_permissions);
        assert_ne!(key.etag, made.key.etag);
    }
    assert_eq!(get(&owner, off.id()).await.expect("a key").state(), ApiKeyState::Disabled);
    let scope = get(&owner, shared.id()).await.expect("a key").team_scope.expect("green is left");
    assert_eq!((scope.team_ids, scope.permissions), (strings(&["green"]), strings(&["secrets.use"])));
    assert_eq!(get(&owner, untouched.id()).await.expect("a key").etag, untouched.key.etag);
    assert_eq!(world.outcome(&shared.token, "secrets.use", &["red"]).await, Outcome::PermissionDenied);
    assert_eq!(world.outcome(&shared.token, "secrets.use", &["green"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&last.token, "secrets.use", &["red"]).await, Outcome::PermissionDenied);
    assert_eq!(world.verify(&last.token, None).await.outcome(), Outcome::Valid);

    let manager = get_user(directory, "red_green_manager").await.expect("a user");
    assert_eq!(manager.team_roles, [on_team("green", "manager")]);
    assert_ne!(manager.etag, manager_before.etag);
    assert!(get_user(directory, "red_manager").await.expect("a user").team_roles.is_empty());
    denied(list(&world.user("red_manager")).await, "api_keys.manage");
    not_found(get_team(directory, "red").await);
    not_found(delete_team(directory, "red", "").await);

    // A re-created team inherits nothing.
    put_team(directory, team("red", "red")).await.expect("again");
    denied(list(&world.user("red_manager")).await, "api_keys.manage");
    assert_eq!(get(&owner, last.id()).await.expect("a key").team_scope, None);
    assert_eq!(world.outcome(&shared.token, "secrets.use", &["red"]).await, Outcome::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_role_in_use_cannot_be_deleted() {
    let world = World::start().await;
    let directory = &world.directory;
    put_role(directory, role("base", RoleKind::Base, &[])).await.expect("a role");
    put_role(directory, role("custom", RoleKind::Custom, &[])).await.expect("a role");
    put_role(directory, role("team", RoleKind::Team, &[])).await.expect("a role");
    let with_all =
        User { custom_role_ids: strings(&["custom"]), team_roles: vec![on_team("red", "team")], ..user("u", "base") };
    put_user(directory, with_all).await.expect("a user");
    for in_use in ["base", "custom", "team"] {
        refused(delete_role(directory, in_use, "").await, Code::FailedPrecondition, "IN_USE", in_use);
    }
    put_user(directory, user("u", "owner")).await.expect("without them");
    for unused in ["base", "custom", "team"] {
        delete_role(directory, unused, "").await.expect("no user has it");
        not_found(get_role(directory, unused).await);
        not_found(delete_role(directory, unused, "").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_roles_kind_is_immutable_and_team_roles_hold_only_team_scopable_permissions() {
    let world = World::start().await;
    let directory = &world.directory;
    put_role(directory, role("r", RoleKind::Custom, &["billing.manage"])).await.expect("custom roles hold anything");
    for kind in [RoleKind::Base, RoleKind::Team] {
        bad_field(put_role(directory, role("r", kind, &[])).await, "role.kind");
    }
    put_role(directory, role("t", RoleKind::Team, &["secrets.manage"])).await.expect("team-scopable");
    bad_field(put_role(directory, role("t", RoleKind::Team, &["billing.manage"])).await, "role.permissions");
    let everything = |id: &str, kind| Role { all_permissions: true, ..role(id, kind, &[]) };
    put_role(directory, everything("all", RoleKind::Base)).await.expect("a base role of everything");
    bad_field(put_role(directory, everything("all-t", RoleKind::Team)).await, "role.all_permissions");
    let both = Role { permissions: strings(&["billing.manage"]), ..everything("both", RoleKind::Base) };
    bad_field(put_role(directory, both).await, "role.permissions");
    bad_field(put_role(directory, role("x", RoleKind::Base, &["no.such"])).await, "role.permissions");
    // Once its users are gone and it is deleted, its id is free for any kind.
    delete_role(directory, "r", "").await.expect("no user has it");
    put_role(directory, role("r", RoleKind::Team, &[])).await.expect("a new role");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_users_roles_and_teams_must_exist_and_be_of_the_right_kind() {
    let world = World::start().await;
    let directory = &world.directory;
    let with_custom = |role: &str| User { custom_role_ids: strings(&[role]), ..user("u", "owner") };
    let with_team = |team: &str, role: &str| User { team_roles: vec![on_team(team, role)], ..user("u", "owner") };
    put_user(directory, with_team("red", "manager")).await.expect("both exist");
    for (bad, field) in [
        (user("u", "nowhere"), "user.base_role_id"),
        (user("u", "manager"), "user.base_role_id"),
        (with_custom("nowhere"), "user.custom_role_ids"),
        (with_custom("owner"), "user.custom_role_ids"),
        (with_team("red", "owner"), "user.team_roles"),
        (with_team("red", "nowhere"), "user.team_roles"),
        (with_team("nowhere", "manager"), "user.team_roles"),
    ] {
        bad_field(put_user(directory, bad).await, field);
    }
    assert_eq!(get_user(directory, "u").await.expect("a user").team_roles, [on_team("red", "manager")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_deleted_users_id_inherits_nothing_and_its_keys_stay() {
    let world = World::start().await;
    let directory = &world.directory;
    let made =
        mint(&world.user("red_manager"), &team_key("k", &[], &["red"], &["schedules.edit"])).await.expect("a key");
    let before = head(&world).await;
    delete_user(directory, "red_manager", "").await.expect("deleted");
    assert_eq!(only_event_after(&world, before).await.kind(), EventKind::UserDeleted);
    unauthenticated(list(&world.user("red_manager")).await, "BAD_USER");
    not_found(get_user(directory, "red_manager").await);
    not_found(delete_user(directory, "red_manager", "").await);
    // K5: the key works on, its creator on record.
    assert_eq!(world.outcome(&made.token, "schedules.edit", &["red"]).await, Outcome::Valid);
    put_user(directory, user("red_manager", "standard")).await.expect("again");
    denied(list(&world.user("red_manager")).await, "api_keys.manage");
    let key = get(&world.user("owner"), made.id()).await.expect("a key");
    assert_eq!(key.creator.expect("a creator").user_id, "red_manager");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_all_or_none_with_an_event_for_each_that_changes() {
    let world = World::start().await;
    let directory = &world.directory;
    let before = head(&world).await;
    let bad = vec![team("one", "1"), team("two", "bad\u{7}name"), team("three", "3")];
    bad_field(put_teams(directory, bad).await, "teams[1].display_name");
    bad_field(put_teams(directory, vec![team("one", "1"), team("one", "2")]).await, "teams[1].team_id");
    bad_field(put_teams(directory, vec![]).await, "teams");
    let many = (0..1_001).map(|i| team(&format!("t{i}"), "")).collect();
    bad_field(put_teams(directory, many).await, "teams");
    bad_field(put_users(directory, vec![user("one", "owner"), user("two", "nowhere")]).await, "users[1].base_role_id");
    bad_field(put_users(directory, vec![user("one", "owner"), user("one", "owner")]).await, "users[1].user_id");
    bad_field(put_users(directory, vec![]).await, "users");
    assert_eq!(head(&world).await, before);
    not_found(get_team(directory, "one").await);
    not_found(get_user(directory, "one").await);
    let stored =
        put_teams(directory, vec![team("one", "1"), team("red", "red"), team("two", "2")]).await.expect("good");
    let ids: Vec<_> = stored.iter().map(|team| team.team_id.as_str()).collect();
    assert_eq!(ids, ["one", "red", "two"], "in the request's order");
    let events = events_after(&world, before).await;
    let targets: Vec<_> = events.iter().map(|event| event.target.clone().expect("a target").id).collect();
    assert_eq!(targets, ["one", "two"], "red did not change");
    assert_eq!(stored[1], get_team(directory, "red").await.expect("a team"));
    assert_eq!(stored[2], get_team(directory, "two").await.expect("a team"));
    let users = (0..1_000).map(|i| user(&format!("u{i:04}"), "standard")).collect();
    let before = head(&world).await;
    assert_eq!(put_users(directory, users).await.expect("a thousand").len(), 1_000);
    assert_eq!(head(&world).await, before + 1_000);
}
