//! M4, M5: no call grants what its caller does not hold, and a key makes no managers.

use latchkey::proto::ApiKey;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_a_key_is_minted_only_with_what_its_maker_holds() {
    let world = World::start().await;
    let key_manager =
        as_caller(&world, &team_key("m", &["api_keys.manage", "billing.manage"], &["red"], &["secrets.manage"])).await;
    mint(&key_manager, &key("k", &["billing.manage"])).await.expect("held");
    mint(&key_manager, &team_key("k", &[], &["red"], &["secrets.manage"])).await.expect("held on red");
    for (bad, names) in [
        (key("k", &["settings.view"]), "settings.view"),
        (team_key("k", &["billing.manage"], &["green"], &["secrets.use"]), "green"),
        (team_key("k", &[], &["red", "green"], &["secrets.manage"]), "green"),
        // Held on one team is not held account-wide.
        (key("k", &["secrets.use"]), "secrets.use"),
    ] {
        denied(mint(&key_manager, &bad).await, names);
    }
    mint(&world.user("admin"), &key("k", &["settings.manage", "billing.manage"])).await.expect("held");
    denied(mint(&world.user("admin"), &key("k", &["security_settings.manage"])).await, "security_settings.manage");
    // An account-level pair covers every team.
    mint(&world.user("admin"), &team_key("k", &[], &TEAMS, &["schedules.edit"])).await.expect("held account-wide");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_what_a_permission_implies_counts_on_both_sides() {
    let world = World::start().await;
    let manager =
        as_caller(&world, &team_key("m", &["api_keys.manage", "incidents.edit"], &["red"], &["secrets.manage"])).await;
    // The implied ones come with what implies them.
    mint(&manager, &key("k", &["incidents.view", "incidents.create"])).await.expect("implied");
    mint(&manager, &team_key("k", &[], &["red"], &["secrets.use"])).await.expect("implied on red");
    // But never the other way round.
    let viewer = ["api_keys.manage", "incidents.view", "incidents.create"];
    let viewer = as_caller(&world, &team_key("v", &viewer, &["red"], &["secrets.use"])).await;
    denied(mint(&viewer, &key("k", &["incidents.edit"])).await, "incidents.edit");
    denied(mint(&viewer, &team_key("k", &[], &["red"], &["secrets.manage"])).await, "secrets.manage");
    // What a key had by implication, an edit may name.
    let made = owned(&world, &key("k", &["settings.manage"])).await;
    let named = key("", &["settings.manage", "settings.view"]);
    update(&viewer, made.id(), &["account_permissions"], named).await.expect("adds nothing to the closed set");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_an_edit_is_judged_on_what_it_adds() {
    let world = World::start().await;
    let admin = world.user("admin");
    let made = owned(&world, &key("k", &["security_settings.manage", "secrets.use"])).await;
    let permissions = &["account_permissions"];
    rename(&admin, made.id()).await.expect("adds nothing");
    let more = key("", &["security_settings.manage", "secrets.use", "billing.manage"]);
    update(&admin, made.id(), permissions, more).await.expect("adds only what the admin holds");
    let too_much = key("", &["security_settings.manage", "secrets.use", "postmortems.manage"]);
    denied(update(&admin, made.id(), permissions, too_much).await, "postmortems.manage");
    // Account-wide to one team is less; one team to account-wide is more.
    let down = team_key("", &[], &["red"], &["secrets.use"]);
    let both = &["account_permissions", "team_scope"];
    update(&admin, made.id(), both, down).await.expect("narrower");
    denied(update(&admin, made.id(), both, key("", &["secrets.use"])).await, "secrets.use");
    let wider = update(&admin, made.id(), &["team_scope.team_ids"], scope(&["red", "green"], &[])).await;
    denied(wider, "green");
    let other = update(&admin, made.id(), &["team_scope.team_ids"], scope(&["green"], &[])).await;
    denied(other, "secrets.use");
    let more = scope(&["red", "green"], &["schedules.edit"]);
    update(&admin, made.id(), &["team_scope"], more).await.expect("what it holds, on teams of its account");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_rotating_enabling_and_extending_are_judged_on_the_whole_authority() {
    let world = World::start().await;
    let admin = world.user("admin");
    let beyond = owned(&world, &living(key("k", &["billing.manage", "security_settings.manage"]), 3_600)).await;
    let within = owned(&world, &living(key("k", &["billing.manage"]), 3_600)).await;
    let later = until(ApiKey::default(), expiry_of(&beyond.key) + 600);
    let sooner = until(ApiKey::default(), expiry_of(&beyond.key) - 600);
    let mask = &["expire_time"];

    rotate(&admin, within.id()).await.expect("within what it holds");
    denied(rotate(&admin, beyond.id()).await, "security_settings.manage");

    update(&admin, within.id(), mask, later.clone()).await.expect("within what it holds");
    denied(update(&admin, beyond.id(), mask, later).await, "security_settings.manage");
    denied(update(&admin, beyond.id(), mask, ApiKey::default()).await, "security_settings.manage");
    update(&admin, beyond.id(), mask, sooner).await.expect("sooner is narrower");

    for made in [&within, &beyond] {
        disable(&admin, made.id()).await.expect("narrower");
    }
    enable(&admin, within.id()).await.expect("within what it holds");
    denied(enable(&admin, beyond.id()).await, "security_settings.manage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_time_is_authority_too() {
    let world = World::start().await;
    let manager = owned(&world, &living(key("m", &["api_keys.manage", "billing.manage"]), 3_600)).await;
    let (own, caller) = (expiry_of(&manager.key), world.server.caller(&manager.token));
    mint(&caller, &until(key("k", &["billing.manage"]), own - 1)).await.expect("sooner than itself");
    let same = ApiKey { expiry: manager.key.expiry, ..key("k", &["billing.manage"]) };
    let same = mint(&caller, &same).await.expect("no later than itself");
    for permissions in [&["billing.manage"][..], &[]] {
        forbidden(mint(&caller, &key("k", permissions)).await, "M4");
        forbidden(mint(&caller, &until(key("k", permissions), own + 1)).await, "M4");
    }
    // Neither later nor for ever, by whatever call.
    let mask = &["expire_time"];
    forbidden(update(&caller, same.id(), mask, until(ApiKey::default(), own + 1)).await, "M4");
    forbidden(update(&caller, same.id(), mask, ApiKey::default()).await, "M4");
    update(&caller, same.id(), mask, until(ApiKey::default(), own - 60)).await.expect("sooner");
    update(&caller, same.id(), mask, until(ApiKey::default(), own - 30)).await.expect("later, but before itself");
    rotate(&caller, same.id()).await.expect("it expires first");
    // A key that outlives it gains nothing from it.
    let lasting = owned(&world, &key("k", &[])).await;
    rename(&caller, lasting.id()).await.expect("adds nothing");
    let more = update(&caller, lasting.id(), &["account_permissions"], key("", &["billing.manage"])).await;
    forbidden(more, "M4");
    forbidden(rotate(&caller, lasting.id()).await, "M4");
    disable(&caller, lasting.id()).await.expect("narrower");
    forbidden(enable(&caller, lasting.id()).await, "M4");
    delete(&caller, lasting.id()).await.expect("narrower");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m5_a_key_cannot_mint_managers() {
    let world = World::start().await;
    let manager = as_caller(&world, &key("m", &["api_keys.manage", "billing.manage"])).await;
    let team_manager = as_caller(&world, &team_key("m", &[], &["red"], &["api_keys.manage", "secrets.use"])).await;
    forbidden(mint(&manager, &key("k", &["api_keys.manage"])).await, "M5");
    for caller in [&manager, &team_manager] {
        forbidden(mint(caller, &team_key("k", &[], &["red"], &["api_keys.manage"])).await, "M5");
    }
    let plain = mint(&manager, &key("k", &["billing.manage"])).await.expect("no manager");
    let more = key("", &["billing.manage", "api_keys.manage"]);
    forbidden(update(&manager, plain.id(), &["account_permissions"], more.clone()).await, "M5");
    // A user and an operator can.
    for caller in [&world.user("admin"), &world.server.operator] {
        mint(caller, &key("k", &["api_keys.manage"])).await.expect("a user or an operator");
        mint(caller, &team_key("k", &[], &["red"], &["api_keys.manage"])).await.expect("a user or an operator");
    }
    let team = team_key("k", &[], &["red"], &["api_keys.manage"]);
    mint(&world.user("red_manager"), &team).await.expect("a user who manages red");
    update(&world.user("admin"), plain.id(), &["account_permissions"], more).await.expect("a user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m5_a_key_cannot_rotate_enable_or_extend_a_manager() {
    let world = World::start().await;
    let manager = as_caller(&world, &key("m", &["api_keys.manage", "secrets.use"])).await;
    for made in [
        living(key("k", &["api_keys.manage"]), 3_600),
        living(team_key("k", &[], &["red"], &["api_keys.manage"]), 3_600),
    ] {
        let made = owned(&world, &made).await;
        let later = until(ApiKey::default(), expiry_of(&made.key) + 60);
        rename(&manager, made.id()).await.expect("adds nothing");
        forbidden(rotate(&manager, made.id()).await, "M5");
        forbidden(update(&manager, made.id(), &["expire_time"], later.clone()).await, "M5");
        disable(&manager, made.id()).await.expect("narrower");
        forbidden(enable(&manager, made.id()).await, "M5");
        for caller in [&world.user("admin"), &world.server.operator] {
            enable(caller, made.id()).await.expect("a user or an operator");
            rotate(caller, made.id()).await.expect("a user or an operator");
        }
        update(&world.user("admin"), made.id(), &["expire_time"], later).await.expect("a user");
        delete(&manager, made.id()).await.expect("narrower");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m4_a_retiring_token_makes_nothing_that_outlives_it() {
    let world = World::start().await;
    let manager = owned(&world, &key("m", &["api_keys.manage", "billing.manage"])).await;
    let lasting = owned(&world, &key("k", &["billing.manage"])).await;
    let expiring = owned(&world, &living(key("k", &["billing.manage"]), 600)).await;
    let own = world.server.caller(&manager.token);
    mint(&own, &key("k", &["billing.manage"])).await.expect("the current token of a key without an expiry");
    let rotated = rotate_with(&world.user("owner"), ACME, manager.id(), Some(1_800)).await.expect("rotated");
    let end = rotated.key.retiring_token_end_time.expect("a token retires").seconds;

    for permissions in [&["billing.manage"][..], &[]] {
        forbidden(mint(&own, &key("k", permissions)).await, "M4");
        forbidden(mint(&own, &until(key("k", permissions), end + 1)).await, "M4");
        mint(&own, &until(key("k", permissions), end - 1)).await.expect("no later than the token");
    }
    let mask = &["expire_time"];
    forbidden(update(&own, expiring.id(), mask, until(ApiKey::default(), end + 60)).await, "M4");
    forbidden(update(&own, expiring.id(), mask, ApiKey::default()).await, "M4");
    update(&own, expiring.id(), mask, until(ApiKey::default(), end - 60)).await.expect("sooner than the token");
    rotate(&own, expiring.id()).await.expect("it expires first");
    disable(&own, expiring.id()).await.expect("narrower");
    enable(&own, expiring.id()).await.expect("it expires first");

    forbidden(rotate(&own, lasting.id()).await, "M4");
    rename(&own, lasting.id()).await.expect("adds nothing");
    let more = key("", &["billing.manage", "api_keys.manage"]);
    forbidden(update(&own, lasting.id(), &["account_permissions"], more).await, "M5");
    update(&own, lasting.id(), &["account_permissions"], key("", &[])).await.expect("narrower");
    let back = key("", &["billing.manage"]);
    forbidden(update(&own, lasting.id(), &["account_permissions"], back.clone()).await, "M4");
    disable(&own, lasting.id()).await.expect("narrower");
    forbidden(enable(&own, lasting.id()).await, "M4");

    // The current token is as good as ever, and a user through a service whose token retires has no end (A6).
    let current = world.server.caller(&rotated.token);
    enable(&current, lasting.id()).await.expect("the current token");
    update(&current, lasting.id(), &["account_permissions"], back).await.expect("the current token");
    let service =
        create(&world.server.operator, "system", &key("s", &["system.impersonate"])).await.expect("a service");
    let key_id = service.api_key.expect("a key").key_id;
    rotate_with(&world.server.operator, "system", &key_id, Some(600)).await.expect("rotated");
    let admin = world.server.caller(&service.token).for_user(ACME, "admin");
    mint(&admin, &key("k", &["billing.manage"])).await.expect("the user's authority has no end");
}
