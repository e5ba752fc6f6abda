//! M6: what a key may do to itself.

use latchkey::proto::{ApiKey, RevokeTokenRequest, VerificationOutcome as Outcome};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_a_key_cannot_edit_enable_or_extend_itself() {
    let world = World::start().await;
    let made = owned(&world, &living(key("m", &["api_keys.manage", "billing.manage"]), 3_600)).await;
    let (own, other) = (world.server.caller(&made.token), world.user("admin"));
    let later = until(ApiKey::default(), expiry_of(&made.key) + 60);
    let narrower = key("", &["api_keys.manage"]);
    forbidden(rename(&own, made.id()).await, "M6");
    forbidden(update(&own, made.id(), &["account_permissions"], narrower.clone()).await, "M6");
    forbidden(update(&own, made.id(), &["expire_time"], later.clone()).await, "M6");
    forbidden(enable(&own, made.id()).await, "M6");
    rename(&other, made.id()).await.expect("another caller");
    update(&other, made.id(), &["expire_time"], later).await.expect("another caller");
    update(&other, made.id(), &["account_permissions"], narrower).await.expect("another caller");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_a_key_may_always_revoke_itself() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &[])).await;
    let own = world.server.caller(&made.token);
    not_found(delete(&own, made.id()).await);
    own.tokens().revoke_token(RevokeTokenRequest { ..Default::default() }).await.expect("without any authority");
    assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::Deleted);
    // A manager is one of the keys that it manages: disabling and deleting itself need no more (M7).
    let manager = owned(&world, &key("m", &["api_keys.manage"])).await;
    disable(&world.server.caller(&manager.token), manager.id()).await.expect("narrower");
    assert_eq!(world.verify(&manager.token, None).await.outcome(), Outcome::Disabled);
    let manager = owned(&world, &key("m", &["api_keys.manage"])).await;
    delete(&world.server.caller(&manager.token), manager.id()).await.expect("narrower");
    assert_eq!(world.verify(&manager.token, None).await.outcome(), Outcome::Deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_a_key_rotates_itself_only_with_rotate_self_at_either_scope() {
    let world = World::start().await;
    for made in [
        key("k", &["api_keys.rotate_self", "security_settings.manage"]),
        team_key("k", &["billing.manage"], &["red"], &["api_keys.rotate_self"]),
    ] {
        let made = owned(&world, &made).await;
        let rotated = rotate(&world.server.caller(&made.token), made.id()).await.expect("it may rotate itself");
        assert_eq!(rotated.id(), made.id());
        assert_eq!(rotated.key.account_permissions, made.key.account_permissions);
        assert_eq!(rotated.key.team_scope, made.key.team_scope);
        let again = world.server.caller(&rotated.token);
        rotate(&again, made.id()).await.expect("and again with its new token");
    }
    let made = owned(&world, &key("k", &["billing.manage"])).await;
    denied(rotate(&world.server.caller(&made.token), made.id()).await, "api_keys.rotate_self");
    // It is of no use for another key, nor for anything else.
    let with = as_caller(&world, &key("k", &["api_keys.rotate_self"])).await;
    not_found(rotate(&with, made.id()).await);
    not_found(disable(&with, made.id()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_a_key_rotates_itself_only_with_its_current_token() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &["api_keys.rotate_self"])).await;
    let retiring = world.server.caller(&made.token);
    let current = rotate(&retiring, made.id()).await.expect("it was the current one");
    forbidden(rotate(&retiring, made.id()).await, "M6");
    rotate(&world.server.caller(&current.token), made.id()).await.expect("the current one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m6_a_key_rotates_itself_with_a_grace_of_at_least_a_minute() {
    let world = World::start().await;
    let made = owned(&world, &key("k", &["api_keys.rotate_self"])).await;
    let own = world.server.caller(&made.token);
    for short in [0, 59] {
        bad_field(rotate_with(&own, ACME, made.id(), Some(short)).await, "grace_period");
    }
    rotate_with(&own, ACME, made.id(), Some(60)).await.expect("a minute");
    // A manager is not bound to it.
    rotate_with(&world.user("admin"), ACME, made.id(), Some(0)).await.map(drop).expect_err("beyond an admin");
    rotate_with(&world.user("owner"), ACME, made.id(), Some(0)).await.expect("a manager may end it at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m5_a_key_that_manages_keys_cannot_rotate_itself() {
    let world = World::start().await;
    let made = owned(&world, &key("m", &["api_keys.manage", "api_keys.rotate_self"])).await;
    forbidden(rotate(&world.server.caller(&made.token), made.id()).await, "M5");
    let team = owned(&world, &team_key("m", &["api_keys.rotate_self"], &["red"], &["api_keys.manage"])).await;
    forbidden(rotate(&world.server.caller(&team.token), team.id()).await, "M5");
    rotate(&world.user("owner"), made.id()).await.expect("a user may");
}
