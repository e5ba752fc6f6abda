//! M1-M3, M7: which keys a manager manages, and which it sees.

use latchkey::proto::{ApiKey, GetIdentityRequest, ListApiKeysRequest};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m1_an_account_level_manager_manages_every_key_of_the_account() {
    let world = World::start().await;
    let key_manager = as_caller(&world, &key("m", &["api_keys.manage", "schedules.edit", "incidents.create"])).await;
    for manager in [&world.user("admin"), &key_manager, &world.server.operator] {
        for made in [
            key("none", &[]),
            key("account", &["incidents.create"]),
            team_key("team", &[], &["red"], &["schedules.edit"]),
            team_key("both", &["incidents.create"], &["red", "blue"], &["schedules.view"]),
        ] {
            let made = owned(&world, &made).await;
            get(manager, made.id()).await.expect("visible");
            all_succeed(manager, made.id()).await;
        }
    }
    let made = owned(&world, &key("k", &[])).await;
    let keyless = as_caller(&world, &key("k", &["incidents.create"])).await;
    for stranger in [&world.user("standard"), &keyless] {
        not_found(get(stranger, made.id()).await);
        for (_, result) in every_change(stranger, made.id()).await {
            not_found(result);
        }
        denied(mint(stranger, &key("k", &[])).await, "api_keys.manage");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_a_team_manager_manages_keys_that_lie_within_its_teams() {
    let world = World::start().await;
    let key_manager = as_caller(&world, &team_key("m", &[], &["red"], &["api_keys.manage", "schedules.edit"])).await;
    for manager in [&world.user("red_manager"), &world.user("red_green_manager"), &key_manager] {
        let made = mint(manager, &team_key("k", &[], &["red"], &["schedules.edit"])).await.expect("its own team");
        all_succeed(manager, made.id()).await;
    }
    let both = owned(&world, &team_key("k", &[], &["red", "green"], &["schedules.edit"])).await;
    all_succeed(&world.user("red_green_manager"), both.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_a_team_manager_cannot_touch_a_key_shared_with_another_team() {
    let world = World::start().await;
    let key_manager = as_caller(&world, &team_key("m", &[], &["red"], &["api_keys.manage", "schedules.edit"])).await;
    let shared = owned(&world, &team_key("k", &[], &["red", "green"], &["schedules.edit"])).await;
    for manager in [&world.user("red_manager"), &key_manager] {
        get(manager, shared.id()).await.expect("it sees it");
        for (_, result) in every_change(manager, shared.id()).await {
            denied(result, "green");
        }
    }
    let elsewhere = owned(&world, &team_key("k", &[], &["green"], &["schedules.edit"])).await;
    for (_, result) in every_change(&world.user("red_manager"), elsewhere.id()).await {
        not_found(result);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_a_team_manager_cannot_touch_a_key_with_account_level_permissions() {
    let world = World::start().await;
    // Even if it holds that very permission.
    let wide = owned(&world, &team_key("k", &["incidents.create"], &["red"], &["schedules.edit"])).await;
    get(&world.user("red_manager"), wide.id()).await.expect("it sees it");
    for (_, result) in every_change(&world.user("red_manager"), wide.id()).await {
        denied(result, "api_keys.manage");
    }
    all_succeed(&world.user("admin"), wide.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_who_manages_only_teams_makes_only_keys_of_these_teams() {
    let world = World::start().await;
    let manager = world.user("red_manager");
    mint(&manager, &team_key("k", &[], &["red"], &["schedules.edit"])).await.expect("a key of its team");
    for (bad, names) in [
        (key("none", &[]), "api_keys.manage"),
        (key("account", &["incidents.create"]), "api_keys.manage"),
        (team_key("both", &["incidents.create"], &["red"], &["schedules.edit"]), "api_keys.manage"),
        (team_key("other", &[], &["green"], &["schedules.edit"]), "green"),
        (team_key("wider", &[], &["red", "green"], &["schedules.edit"]), "green"),
        (team_key("nowhere", &[], &["no-such-team"], &["schedules.edit"]), "no-such-team"),
    ] {
        denied(mint(&manager, &bad).await, names);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_an_update_is_judged_as_the_key_was_and_as_it_will_be() {
    let world = World::start().await;
    let (red, both) = (world.user("red_manager"), world.user("red_green_manager"));
    let made = mint(&red, &team_key("k", &[], &["red"], &["schedules.edit"])).await.expect("a key of red");
    // Out of reach, into another's reach, without its last team, beyond teams: not for who manages red.
    let teams = &["team_scope.team_ids"];
    denied(update(&red, made.id(), teams, scope(&["green"], &[])).await, "green");
    denied(update(&red, made.id(), teams, scope(&["red", "green"], &[])).await, "green");
    denied(update(&red, made.id(), teams, scope(&["no-such-team"], &[])).await, "no-such-team");
    denied(update(&red, made.id(), &["team_scope"], ApiKey::default()).await, "api_keys.manage");
    denied(update(&red, made.id(), &["account_permissions"], key("", &["incidents.create"])).await, "api_keys.manage");
    let stripped = update(&red, made.id(), &["*"], key("k", &["incidents.create"])).await;
    denied(stripped, "api_keys.manage");
    assert_eq!(get(&red, made.id()).await.expect("it is there").team_scope, made.key.team_scope);
    // Who manages both teams moves it between them.
    update(&both, made.id(), teams, scope(&["red", "green"], &[])).await.expect("into green");
    denied(rename(&red, made.id()).await, "green");
    update(&both, made.id(), teams, scope(&["green"], &[])).await.expect("out of red");
    not_found(get(&red, made.id()).await);
    denied(update(&both, made.id(), teams, scope(&["blue"], &[])).await, "blue");
    delete(&both, made.id()).await.expect("deleting is the way out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_a_team_manager_sees_the_keys_of_its_teams_and_filters_apply_after_that() {
    let world = World::start().await;
    let red = owned(&world, &team_key("red", &[], &["red"], &["schedules.edit"])).await;
    let shared = owned(&world, &team_key("shared", &["billing.manage"], &["red", "green"], &["secrets.use"])).await;
    let green = owned(&world, &team_key("green", &[], &["green"], &["schedules.edit"])).await;
    let account = owned(&world, &key("account", &["billing.manage"])).await;
    let names = |keys: Vec<ApiKey>| keys.into_iter().map(|key| key.name).collect::<Vec<_>>();
    // Newest first.
    assert_eq!(names(list(&world.user("red_manager")).await.expect("a list")), ["shared", "red"]);
    assert_eq!(names(list(&world.user("admin")).await.expect("a list")), ["account", "green", "shared", "red"]);
    let manager = world.user("red_manager");
    for visible in [&red, &shared] {
        get(&manager, visible.id()).await.expect("on its team");
    }
    for invisible in [&green, &account] {
        not_found(get(&manager, invisible.id()).await);
    }
    let filtered = |caller: &Caller, team: &str, permission: &str| {
        let request = ListApiKeysRequest {
            account_id: ACME.into(),
            team_id: team.into(),
            permission: permission.into(),
            ..Default::default()
        };
        let mut client = caller.keys();
        async move { client.list_api_keys(request).await.map(|found| found.into_inner().api_keys) }
    };
    assert_eq!(names(filtered(&manager, "", "billing.manage").await.expect("a list")), ["shared"]);
    assert_eq!(names(filtered(&manager, "red", "schedules.edit").await.expect("a list")), ["red"]);
    let everywhere = filtered(&world.user("admin"), "", "billing.manage").await.expect("a list");
    assert_eq!(names(everywhere), ["account", "shared"]);
    denied(filtered(&manager, "green", "").await, "green");
    denied(filtered(&manager, "no-such-team", "").await, "no-such-team");
    assert!(filtered(&world.user("admin"), "no-such-team", "").await.expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_who_manages_nothing_sees_no_keys_but_its_own_identity() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &["settings.manage"])).await;
    let caller = world.server.caller(&made.token);
    denied(list(&caller).await, "api_keys.manage");
    denied(list(&world.user("standard")).await, "api_keys.manage");
    not_found(get(&caller, made.id()).await);
    let own = caller.tokens().get_identity(GetIdentityRequest {}).await.expect("its own").into_inner();
    assert_eq!(own.api_key.expect("its key").key_id, made.id());
    assert_eq!(own.account_permissions, ["settings.view", "settings.manage"].map(str::to_owned).to_vec());
    assert!(own.grantable_account_permissions.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m7_a_manager_can_always_take_authority_away_and_may_be_unable_to_give_it_back() {
    let world = World::start().await;
    let (admin, wide) = (world.user("admin"), ["security_settings.manage", "billing.manage"]);
    let made = owned(&world, &team_key("k", &wide, &["red", "green"], &["secrets.use", "schedules.edit"])).await;
    // None of it is the admin's to give: taking it is.
    update(&admin, made.id(), &["account_permissions"], key("", &["billing.manage"])).await.expect("narrower");
    denied(update(&admin, made.id(), &["account_permissions"], key("", &wide)).await, "security_settings.manage");
    update(&admin, made.id(), &["team_scope.team_ids"], scope(&["red"], &[])).await.expect("one team less");
    let back = update(&admin, made.id(), &["team_scope.team_ids"], scope(&["red", "green"], &[])).await;
    denied(back, "secrets.use");
    disable(&admin, made.id()).await.expect("off");
    denied(enable(&admin, made.id()).await, "secrets.use");
    enable(&world.user("owner"), made.id()).await.expect("the owner holds all of it");
    let expiring = living(ApiKey::default(), 3_600);
    let expiring = update(&admin, made.id(), &["ttl"], expiring).await.expect("an expiry");
    let later = until(ApiKey::default(), expiry_of(&expiring) + 60);
    denied(update(&admin, made.id(), &["expire_time"], later).await, "secrets.use");
    delete(&admin, made.id()).await.expect("gone");
}
