//! Answering for a while after the lease (`stale_max`): see [`super`].

use super::*;

const STALE_MAX: Duration = Duration::from_secs(60);
/// Less the margin for drift.
const STALE_MICROS: i64 = 59_400_000;

/// A world that remembers a token, its lease just over.
async fn lapsed(stale_max: Duration) -> (World, PlainToken) {
    let mut world = World::stale(stale_max);
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert!(!world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up").stale());
    world.round().await;
    world.clock.advance(LEASE_MICROS * 99 / 100);
    (world, token)
}

#[tokio::test]
async fn by_default_nothing_is_served_after_the_lease() {
    let (world, token) = lapsed(Duration::ZERO).await;
    assert!(!world.verifier.in_service());
    assert_eq!(cached(&world, &token), None);
}

#[tokio::test]
async fn v1_after_the_lease_answers_say_that_they_may_be_stale_and_they_end() {
    let (world, token) = lapsed(STALE_MAX).await;
    world.primary.database().down = true;
    let bytes = token.reveal().as_bytes();
    let entry = world.verifier.cached(bytes, None).expect("cached").entry().expect("known").clone();
    for passed in [0, STALE_MICROS - 1] {
        world.clock.advance(passed);
        assert!(!world.verifier.has_lease() && world.verifier.in_service());
        let answer = world.verifier.verify(bytes, None).await.expect("from memory");
        assert_eq!((answer.outcome(), answer.stale()), (Outcome::Valid, true));
        let again = world.verifier.verify_again(&entry).await.expect("from memory");
        assert_eq!((again.outcome(), again.stale()), (Outcome::Valid, true));
        assert!(world.verifier.still_good(&entry) && world.verifier.stands(&entry), "callers likewise");
    }
    world.clock.advance(1);
    assert!(!world.verifier.in_service());
    assert_eq!(cached(&world, &token), None);
    assert!(!world.verifier.still_good(&entry) && !world.verifier.stands(&entry));
    let answer = world.verifier.verify(bytes, None).await;
    assert_eq!(answer.map(|answer| answer.outcome()), Err(VerifyError::Unavailable));
    assert_eq!(world.verifier.counters().stale.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn an_unknown_token_may_be_stale_and_a_malformed_one_is_not() {
    let (world, _) = lapsed(STALE_MAX).await;
    let unknown = token(9);
    // It is not remembered: the database is asked, and what it says is not stale.
    assert!(!world.verifier.verify(unknown.reveal().as_bytes(), None).await.expect("up").stale());
    assert!(world.verifier.cached(unknown.reveal().as_bytes(), None).expect("remembered").stale());
    assert!(!world.verifier.cached(b"nonsense", None).expect("malformed").stale());
}

#[tokio::test]
async fn v3_deadlines_hold_while_answers_are_stale() {
    let mut world = World::stale(STALE_MAX);
    let end = Timestamp::from_micros(world.primary.now().as_micros() + LEASE_MICROS + 1_000);
    let token = world.primary.mint(1, TokenFacts { expire_time: Some(end), ..facts(1) });
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.primary.database().down = true;
    world.clock.advance(LEASE_MICROS);
    assert_eq!(cached(&world, &token), Some(Outcome::Valid));
    world.clock.advance(1_000);
    assert_eq!(cached(&world, &token), Some(Outcome::Expired));
}

#[tokio::test]
async fn v1_a_renewal_after_the_lease_ends_the_stale_time_only_once_caught_up() {
    let (mut world, token) = lapsed(STALE_MAX).await;
    world.primary.disable(1);
    assert_eq!(cached(&world, &token), Some(Outcome::Valid), "stale, and says so");
    world.round().await;
    assert!(world.verifier.has_lease());
    assert_eq!(outcome(&world, &token).await, Outcome::Disabled);
}

#[tokio::test]
async fn v2_another_history_ends_the_stale_time_too() {
    let (mut world, token) = lapsed(STALE_MAX).await;
    world.primary.database().log.clear();
    assert!(world.follower.round().await.is_err());
    assert!(!world.verifier.in_service());
    assert_eq!(cached(&world, &token), None);
}
