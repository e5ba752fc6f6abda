//! K7: an optional end, and edits that never rotate the token.

use std::time::Duration;

use latchkey::proto::{ApiKey, EventKind as Kind, VerificationOutcome as Outcome, api_key::Expiry};
use prost_types::Timestamp;
use tonic::Code;

use crate::support::{World, calls::*, world::*};

fn expiring(expiry: Expiry) -> ApiKey {
    ApiKey { expiry: Some(expiry), ..key("k", &["incidents.view"]) }
}

fn expire_time(key: &ApiKey) -> Option<Timestamp> {
    match key.expiry {
        Some(Expiry::ExpireTime(time)) => Some(time),
        Some(Expiry::Ttl(_)) => panic!("ttl is input only"),
        None => None,
    }
}

fn later(time: &Timestamp, seconds: i64) -> Timestamp {
    Timestamp { seconds: time.seconds + seconds, ..*time }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k7_expiry_is_a_moment_or_a_span_and_optional() {
    let world = World::start().await;
    let owner = world.user("owner");
    let never = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let now = never.api_key.as_ref().unwrap().create_time.unwrap();
    assert_eq!(expire_time(never.api_key.as_ref().unwrap()), None);
    assert_eq!(world.verify(&never.token, None).await.expire_time, None);

    let precise = Timestamp { seconds: now.seconds + 3_600, nanos: 123_456_789 };
    let at = create(&owner, ACME, &expiring(Expiry::ExpireTime(precise))).await.unwrap();
    let rounded = Timestamp { nanos: 123_456_000, ..precise };
    assert_eq!(expire_time(at.api_key.as_ref().unwrap()), Some(rounded), "microseconds, rounded down");
    assert_eq!(world.verify(&at.token, None).await.expire_time, Some(rounded));

    let within = create(&owner, ACME, &expiring(Expiry::Ttl(seconds(90)))).await.unwrap().api_key.unwrap();
    let lives = micros(&expire_time(&within).unwrap()) - micros(&within.create_time.unwrap());
    assert_eq!(lives, 90_000_000);

    for past in [now, Timestamp { seconds: 0, nanos: 0 }, later(&now, -3_600)] {
        let refused = create(&owner, ACME, &expiring(Expiry::ExpireTime(past))).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.expire_time");
    }
    for bad in [Timestamp { seconds: now.seconds + 60, nanos: -1 }, Timestamp { seconds: i64::MAX, nanos: 0 }] {
        let refused = create(&owner, ACME, &expiring(Expiry::ExpireTime(bad))).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.expire_time");
    }
    let nanos = |nanos: i32| prost_types::Duration { seconds: 0, nanos };
    for bad in [nanos(0), nanos(999), nanos(-1), seconds(-60), seconds(i64::MAX)] {
        let refused = create(&owner, ACME, &expiring(Expiry::Ttl(bad))).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.ttl");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k7_an_expired_key_says_so_and_moving_its_expiry_revives_the_same_token() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &expiring(Expiry::Ttl(millis(700)))).await.unwrap();
    let stored = minted.api_key.unwrap();
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Valid);
    tokio::time::sleep(Duration::from_millis(750)).await;
    // Never late (V3): what was VALID in memory ends with its time.
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Expired);
    let bearer = world.server.caller(&minted.token);
    assert_refused(get(&bearer, ACME, &stored.key_id).await, Code::Unauthenticated, "BAD_CREDENTIALS", "EXPIRED");
    // Expiry is not a state: the key is edited as ever, and stays expired.
    let edit = ApiKey { key_id: stored.key_id.clone(), ..key("renamed", &[]) };
    update(&owner, ACME, edit.clone(), &["name"]).await.expect("an expired key can be edited");
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Expired);
    let past = ApiKey { expiry: Some(Expiry::ExpireTime(later(&stored.create_time.unwrap(), -5))), ..edit.clone() };
    let refused = update(&owner, ACME, past, &["expire_time"]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.expire_time");

    let extended = ApiKey { expiry: Some(Expiry::Ttl(seconds(60))), ..edit.clone() };
    update(&owner, ACME, extended, &["ttl"]).await.expect("extended");
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Valid);
    let endless = update(&owner, ACME, edit, &["expire_time"]).await.unwrap().api_key.unwrap();
    assert_eq!(expire_time(&endless), None, "named and not populated: cleared");
    assert_eq!(world.verify(&minted.token, None).await.expire_time, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k7_an_edit_can_end_a_key_sooner() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Valid);
    let key_id = minted.api_key.unwrap().key_id;
    let short = ApiKey { key_id, expiry: Some(Expiry::Ttl(millis(300))), ..Default::default() };
    update(&owner, ACME, short, &["ttl"]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k7_a_mask_names_the_form_of_expiry_that_the_key_carries() {
    let world = World::start().await;
    let owner = world.user("owner");
    let stored = create(&owner, ACME, &key("k", &[])).await.unwrap().api_key.unwrap();
    let at = ApiKey {
        key_id: stored.key_id.clone(),
        expiry: Some(Expiry::ExpireTime(later(&stored.create_time.unwrap(), 600))),
        ..Default::default()
    };
    let within = ApiKey { expiry: Some(Expiry::Ttl(seconds(600))), ..at.clone() };
    for (key, path) in [(&at, "ttl"), (&within, "expire_time")] {
        let refused = update(&owner, ACME, key.clone(), &[path]).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "update_mask.paths[0]");
    }
    for (key, paths) in [(&at, &["expire_time"][..]), (&within, &["ttl"]), (&at, &[]), (&within, &[])] {
        let after = update(&owner, ACME, key.clone(), paths).await.unwrap().api_key.unwrap();
        assert!(expire_time(&after).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k7_an_edit_keeps_the_token_and_gives_it_the_new_permissions() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let stored = minted.api_key.unwrap();
    let edit = |names: &[&str]| ApiKey { key_id: stored.key_id.clone(), ..key("k", names) };
    for _ in 0..3 {
        let after = update(&owner, ACME, edit(&["billing.manage"]), &["account_permissions"]).await.unwrap();
        assert_eq!(after.api_key.as_ref().unwrap().token_hint, stored.token_hint);
        assert_eq!(after.api_key.unwrap().rotate_time, stored.rotate_time);
        assert_eq!(world.outcome(&minted.token, "billing.manage", &[]).await, Outcome::Valid);
        assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::PermissionDenied);
        update(&owner, ACME, edit(&["incidents.view"]), &["account_permissions"]).await.unwrap();
        assert_eq!(world.outcome(&minted.token, "billing.manage", &[]).await, Outcome::PermissionDenied);
        assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
    }
    // An edit that changes nothing appends nothing and keeps the etag.
    let (before, current) = (head(&world).await, get(&owner, ACME, &stored.key_id).await.unwrap());
    let same = update(&owner, ACME, edit(&["incidents.view"]), &["account_permissions", "name"]).await.unwrap();
    assert_eq!((head(&world).await, same.api_key.unwrap()), (before, current));
    let kinds = kinds_of(&world, &stored.key_id).await;
    assert_eq!(kinds, [vec![Kind::ApiKeyCreated], vec![Kind::ApiKeyUpdated; 6]].concat());
}
