//! K8: a new token for the same key, the previous one retiring.

use std::time::Duration;

use latchkey::proto::{
    ApiKey, EventKind as Kind, RotateApiKeyRequest, RotateApiKeyResponse, VerificationOutcome as Outcome,
    api_key::Expiry,
};
use tonic::Code;

use crate::support::{World, calls::*, world::*};

const MINUTE: i64 = 60_000_000;

async fn minted(world: &World) -> (String, String) {
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
    (minted.api_key.unwrap().key_id, minted.token)
}

/// How long the previous token still works, in microseconds; `None` if it does not.
fn grace(rotated: &RotateApiKeyResponse) -> Option<i64> {
    let key = rotated.api_key.as_ref().unwrap();
    Some(micros(key.retiring_token_end_time.as_ref()?) - micros(&key.rotate_time.unwrap()))
}

async fn outcomes<const N: usize>(world: &World, tokens: [&str; N]) -> [Outcome; N] {
    let mut outcomes = [Outcome::Unspecified; N];
    for (outcome, token) in outcomes.iter_mut().zip(tokens) {
        *outcome = world.outcome(token, "incidents.view", &[]).await;
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_the_previous_token_works_through_a_grace_of_30_minutes_unless_said_otherwise() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let before = get(&owner, ACME, &id).await.unwrap();
    assert_eq!(before.retiring_token_end_time, None);
    let rotated = rotate(&owner, ACME, &id, None).await.unwrap();
    assert_eq!(grace(&rotated), Some(30 * MINUTE));
    let after = rotated.api_key.clone().unwrap();
    assert_eq!(after.key_id, id, "the key stays");
    assert_ne!(after.etag, before.etag);
    assert!(micros(&after.rotate_time.unwrap()) > micros(&before.rotate_time.unwrap()));
    assert_eq!(get(&owner, ACME, &id).await.unwrap(), after);
    assert_eq!(outcomes(&world, [&first, &rotated.token]).await, [Outcome::Valid; 2]);
    // Each token knows its own end.
    assert_eq!(world.verify(&first, None).await.expire_time, after.retiring_token_end_time);
    assert_eq!(world.verify(&rotated.token, None).await.expire_time, None);
    assert_eq!(kinds_of(&world, &id).await, [Kind::ApiKeyCreated, Kind::ApiKeyRotated]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_grace_is_0_to_60_minutes_and_0_ends_the_previous_token_at_once() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let micro = |micros: i32| prost_types::Duration { seconds: 0, nanos: micros * 1_000 };
    let over = prost_types::Duration { seconds: 3_600, nanos: 1_000 };
    for bad in [over, seconds(3_601), seconds(-1), micro(-1), seconds(i64::MAX)] {
        let refused = rotate(&owner, ACME, &id, Some(bad)).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "grace_period");
    }
    assert_eq!(outcomes(&world, [&first]).await, [Outcome::Valid], "what was refused rotated nothing");
    let second = rotate(&owner, ACME, &id, Some(seconds(3_600))).await.expect("exactly an hour");
    assert_eq!(grace(&second), Some(60 * MINUTE));
    assert_eq!(outcomes(&world, [&first, &second.token]).await, [Outcome::Valid; 2]);
    let third = rotate(&owner, ACME, &id, Some(seconds(0))).await.expect("at once");
    assert_eq!(
        outcomes(&world, [&first, &second.token, &third.token]).await,
        [Outcome::Rotated, Outcome::Rotated, Outcome::Valid]
    );
    // None works any more: nothing is shown of it.
    assert_eq!(grace(&third), None);
    assert_eq!(get(&owner, ACME, &id).await.unwrap(), third.api_key.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_retiring_token_ends_with_its_grace() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let rotated = rotate(&owner, ACME, &id, Some(millis(600))).await.unwrap();
    assert_eq!(grace(&rotated), Some(600_000));
    assert_eq!(outcomes(&world, [&first, &rotated.token]).await, [Outcome::Valid; 2]);
    tokio::time::sleep(Duration::from_millis(650)).await;
    assert_eq!(outcomes(&world, [&first, &rotated.token]).await, [Outcome::Rotated, Outcome::Valid]);
    let bearer = world.server.caller(&first);
    assert_refused(get(&bearer, ACME, &id).await, Code::Unauthenticated, "BAD_CREDENTIALS", "ROTATED");
    assert_eq!(get(&owner, ACME, &id).await.unwrap().retiring_token_end_time, None, "none works any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_at_most_two_tokens_live_rotating_again_ends_the_retiring_one_at_once() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let second = rotate(&owner, ACME, &id, Some(seconds(3_600))).await.unwrap().token;
    assert_eq!(outcomes(&world, [&first, &second]).await, [Outcome::Valid; 2]);
    let third = rotate(&owner, ACME, &id, Some(seconds(3_600))).await.unwrap().token;
    assert_eq!(outcomes(&world, [&first, &second, &third]).await, [Outcome::Rotated, Outcome::Valid, Outcome::Valid]);
    let fourth = rotate(&owner, ACME, &id, Some(seconds(3_600))).await.unwrap().token;
    assert_eq!(outcomes(&world, [&first, &second]).await, [Outcome::Rotated; 2]);
    assert_eq!(outcomes(&world, [&third, &fourth]).await, [Outcome::Valid; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_concurrent_rotations_leave_two_live_tokens() {
    let world = World::start().await;
    let (id, first) = minted(&world).await;
    let mut rotations = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (owner, id) = (world.user("owner"), id.clone());
        rotations.spawn(async move { rotate(&owner, ACME, &id, None).await.expect("each is serial").token });
    }
    let mut tokens = rotations.join_all().await;
    tokens.push(first);
    let mut live = 0;
    for token in &tokens {
        match world.verify(token, None).await.outcome() {
            Outcome::Valid => live += 1,
            other => assert_eq!(other, Outcome::Rotated),
        }
    }
    assert_eq!((tokens.len(), live), (7, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_retiring_token_never_outlives_the_key_and_rotation_never_moves_the_expiry() {
    let world = World::start().await;
    let owner = world.user("owner");
    let soon = ApiKey { expiry: Some(Expiry::Ttl(seconds(600))), ..key("k", &["incidents.view"]) };
    let minted = create(&owner, ACME, &soon).await.unwrap();
    let stored = minted.api_key.unwrap();
    let Some(Expiry::ExpireTime(end)) = stored.expiry else { panic!("it expires") };
    let rotated = rotate(&owner, ACME, &stored.key_id, Some(seconds(3_600))).await.unwrap().api_key.unwrap();
    assert_eq!(rotated.retiring_token_end_time, Some(end));
    assert_eq!(rotated.expiry, stored.expiry);
    // An expiry that moves sooner takes the retiring token along, and does not give it back.
    let expiring = |span| ApiKey { key_id: stored.key_id.clone(), expiry: Some(Expiry::Ttl(span)), ..key("k", &[]) };
    let sooner = update(&owner, ACME, expiring(millis(400)), &["ttl"]).await.unwrap().api_key.unwrap();
    let Some(Expiry::ExpireTime(new_end)) = sooner.expiry else { panic!("it expires") };
    assert_eq!(sooner.retiring_token_end_time, Some(new_end));
    let later = update(&owner, ACME, expiring(seconds(600)), &["ttl"]).await.unwrap().api_key.unwrap();
    assert_eq!(later.retiring_token_end_time, Some(new_end));
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(outcomes(&world, [&minted.token]).await, [Outcome::Rotated]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_disabled_expired_or_deleted_key_cannot_be_rotated() {
    let world = World::start().await;
    let owner = world.user("owner");
    let refused = async |id: &str, why: &str| {
        let before = head(&world).await;
        let refused = rotate(&owner, ACME, id, None).await;
        assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE", why);
        assert_eq!(head(&world).await, before);
    };
    let (id, first) = minted(&world).await;
    disable(&owner, ACME, &id).await.unwrap();
    refused(&id, "disabled").await;
    enable(&owner, ACME, &id).await.unwrap();
    rotate(&owner, ACME, &id, None).await.expect("enabled again");
    delete(&owner, ACME, &id).await.unwrap();
    refused(&id, "deleted").await;
    assert_eq!(outcomes(&world, [&first]).await, [Outcome::Deleted], "DELETED comes before ROTATED");

    let brief = ApiKey { expiry: Some(Expiry::Ttl(millis(150))), ..key("k", &["incidents.view"]) };
    let id = create(&owner, ACME, &brief).await.unwrap().api_key.unwrap().key_id;
    tokio::time::sleep(Duration::from_millis(200)).await;
    refused(&id, "expired").await;
    let extended = ApiKey { key_id: id.clone(), expiry: Some(Expiry::Ttl(seconds(60))), ..key("k", &[]) };
    update(&owner, ACME, extended, &["ttl"]).await.unwrap();
    rotate(&owner, ACME, &id, None).await.expect("extended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_disabled_keys_tokens_come_back_both_when_it_is_enabled() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let second = rotate(&owner, ACME, &id, None).await.unwrap().token;
    disable(&owner, ACME, &id).await.unwrap();
    assert_eq!(outcomes(&world, [&first, &second]).await, [Outcome::Disabled; 2]);
    enable(&owner, ACME, &id).await.unwrap();
    assert_eq!(outcomes(&world, [&first, &second]).await, [Outcome::Valid; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_stale_etag_stops_a_rotation_and_validate_only_mints_nothing() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let stale = get(&owner, ACME, &id).await.unwrap().etag;
    let current = rotate(&owner, ACME, &id, None).await.unwrap().api_key.unwrap();
    let rotating = |etag: &str, validate_only| RotateApiKeyRequest {
        account_id: ACME.into(),
        key_id: id.clone(),
        etag: etag.into(),
        validate_only,
        ..Default::default()
    };
    let before = head(&world).await;
    for validate_only in [false, true] {
        let refused = owner.keys().rotate_api_key(rotating(&stale, validate_only)).await;
        assert_refused(refused, Code::Aborted, "STALE_ETAG", "");
    }
    let validated = owner.keys().rotate_api_key(rotating(&current.etag, true)).await.unwrap().into_inner();
    assert_eq!((validated.token, validated.api_key), (String::new(), Some(current.clone())));
    assert_eq!(head(&world).await, before);
    assert_eq!(outcomes(&world, [&first]).await, [Outcome::Valid]);
    owner.keys().rotate_api_key(rotating(&current.etag, false)).await.expect("the current etag");
    assert_eq!(outcomes(&world, [&first]).await, [Outcome::Rotated]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_token_presented_after_its_end_is_recorded_once_an_hour_however_often_it_comes() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, first) = minted(&world).await;
    let second = rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap().token;
    let etag = get(&owner, ACME, &id).await.unwrap().etag;
    let presented = async || {
        let kinds = kinds_of(&world, &id).await;
        kinds.iter().filter(|kind| **kind == Kind::RotatedTokenPresented).count()
    };
    assert_eq!(presented().await, 0, "no caller presented it");
    for _ in 0..20 {
        assert_eq!(outcomes(&world, [&first]).await, [Outcome::Rotated]);
    }
    eventually("the presentation is recorded", async || presented().await > 0).await;
    // Again, as a caller this time, and from a replica that has forgotten what it reported.
    let bearer = world.server.caller(&first);
    assert_refused(get(&bearer, ACME, &id).await, Code::Unauthenticated, "BAD_CREDENTIALS", "ROTATED");
    let again = crate::support::Server::start_on(world.server.database.clone(), |flags| flags).await;
    let verifier = crate::support::Caller { channel: again.channel.clone(), ..world.verifier.clone() };
    let request = latchkey::proto::VerifyTokenRequest { token: first.clone(), ..Default::default() };
    let answer = verifier.tokens().verify_token(request).await.unwrap().into_inner().verification.unwrap();
    assert_eq!(answer.outcome(), Outcome::Rotated);
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(presented().await, 1);
    // Latchkey itself noted it; the key is as it was.
    let event = events_after(&world, 0).await.into_iter().find(|e| e.kind() == Kind::RotatedTokenPresented).unwrap();
    assert_eq!((event.actor, event.target.unwrap().id), (None, id.clone()));
    assert_eq!(get(&owner, ACME, &id).await.unwrap().etag, etag);
    // Another token of the key is another matter.
    rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap();
    assert_eq!(outcomes(&world, [&second]).await, [Outcome::Rotated]);
    eventually("the other one is recorded", async || presented().await == 2).await;
}
