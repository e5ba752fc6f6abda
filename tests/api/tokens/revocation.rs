//! RevokeToken: a token ends itself.

use latchkey::proto::{
    ApiKey, ApiKeyState as State, EventKind as Kind, VerificationOutcome as Outcome, api_key::Expiry,
};
use tonic::Code;

use crate::support::{World, calls::*, world::*};

async fn minted(world: &World) -> (String, String) {
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
    (minted.api_key.unwrap().key_id, minted.token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_current_token_deletes_the_key_and_repeating_appends_nothing() {
    let world = World::start().await;
    let (id, first) = minted(&world).await;
    let second = rotate(&world.user("owner"), ACME, &id, None).await.unwrap().token;
    let propagation = revoke(&world.server.caller(&second)).await.expect("a token may always end itself (M6)");
    assert_eq!(propagation.revision.unwrap().number, head(&world).await);
    for token in [&first, &second] {
        assert_eq!(world.verify(token, None).await.outcome(), Outcome::Deleted);
    }
    let stored = get(&world.user("owner"), ACME, &id).await.unwrap();
    assert_eq!((stored.state(), stored.delete_time.is_some()), (State::Deleted, true));
    let before = head(&world).await;
    for token in [&first, &second, &second] {
        revoke(&world.server.caller(token)).await.expect("idempotent");
    }
    assert_eq!(head(&world).await, before);
    assert_eq!(kinds_of(&world, &id).await, [Kind::ApiKeyCreated, Kind::ApiKeyRotated, Kind::ApiKeyRevoked]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retiring_token_ends_only_itself() {
    let world = World::start().await;
    let (id, first) = minted(&world).await;
    let rotated = rotate(&world.user("owner"), ACME, &id, None).await.unwrap();
    revoke(&world.server.caller(&first)).await.unwrap();
    assert_eq!(world.verify(&first, None).await.outcome(), Outcome::Rotated);
    assert_eq!(world.verify(&rotated.token, None).await.outcome(), Outcome::Valid);
    let stored = get(&world.user("owner"), ACME, &id).await.unwrap();
    assert_eq!((stored.state(), stored.retiring_token_end_time), (State::Active, None));
    let mut before = kinds_of(&world, &id).await;
    // That it was presented after its end may be on record by now, or not yet (K8).
    before.retain(|kind| *kind != Kind::RotatedTokenPresented);
    assert_eq!(before, [Kind::ApiKeyCreated, Kind::ApiKeyRotated, Kind::RetiringTokenRevoked]);
    revoke(&world.server.caller(&first)).await.expect("idempotent");
    assert_eq!(world.verify(&rotated.token, None).await.outcome(), Outcome::Valid);
    let after: Vec<_> = kinds_of(&world, &id).await;
    assert!(after.iter().filter(|kind| **kind == Kind::RetiringTokenRevoked).count() == 1, "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_itself_when_disabled_expired_or_suspended() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (disabled, suspended, retiring) = (minted(&world).await, minted(&world).await, minted(&world).await);
    let brief = ApiKey { expiry: Some(Expiry::Ttl(millis(100))), ..key("k", &[]) };
    let expired = create(&owner, ACME, &brief).await.unwrap().token;
    disable(&owner, ACME, &disabled.0).await.unwrap();
    rotate(&owner, ACME, &retiring.0, None).await.unwrap();
    disable(&owner, ACME, &retiring.0).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(world.verify(&expired, None).await.outcome(), Outcome::Expired);
    for token in [&disabled.1, &expired, &retiring.1] {
        revoke(&world.server.caller(token)).await.expect("in any state");
    }
    suspend(&world, ACME).await;
    revoke(&world.server.caller(&suspended.1)).await.expect("in a suspended account too");
    for token in [&disabled.1, &expired, &suspended.1] {
        assert_eq!(world.verify(token, None).await.outcome(), Outcome::Deleted);
    }
    assert_eq!(world.verify(&retiring.1, None).await.outcome(), Outcome::Rotated);
    resume(&world, ACME).await;
    assert_eq!(get(&owner, ACME, &retiring.0).await.unwrap().state(), State::Disabled, "only its token ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_token_on_record_cannot_be_revoked() {
    let world = World::start().await;
    let unknown = crate::support::Server::start().await.operator.token.clone();
    for (token, why) in [("nonsense", "MALFORMED"), (unknown.as_str(), "UNKNOWN")] {
        let refused = revoke(&world.server.caller(token)).await;
        assert_refused(refused, Code::Unauthenticated, "BAD_CREDENTIALS", why);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_a_token_is_not_revoked_on_behalf_of_anybody() {
    let world = World::start().await;
    let before = head(&world).await;
    let refused = revoke(&world.user("owner")).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_METADATA", "latchkey-on-behalf-of");
    assert_eq!(head(&world).await, before);
    get(&world.user("owner"), ACME, "key_00000000000000000000000000")
        .await
        .expect_err("the service's token still works");
    assert_eq!(world.verify(&world.product.token, None).await.outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_revocations_of_one_token_append_one_event() {
    let world = World::start().await;
    let (id, token) = minted(&world).await;
    let mut revocations = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let bearer = world.server.caller(&token);
        revocations.spawn(async move { revoke(&bearer).await.map(|_| ()) });
    }
    revocations.join_all().await.into_iter().for_each(|revoked| revoked.expect("idempotent"));
    assert_eq!(kinds_of(&world, &id).await, [Kind::ApiKeyCreated, Kind::ApiKeyRevoked]);
}
