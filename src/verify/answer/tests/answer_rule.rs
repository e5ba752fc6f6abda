//! The answer rule under races, faults and time (V1, V2): see [`super`]. The rest of the verifier's tests
//! are in its own file.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    domain::{log::event::EventKind, verification::TokenFacts},
    verify::fake::{FakePrimary, World, facts, pepper, token},
};

#[tokio::test]
async fn v1_a_revocation_that_was_applied_is_answered_by_every_later_request() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.primary.disable(1);
    world.round().await;
    assert_eq!(cached(&world, &token), None);
    assert_eq!(outcome(&world, &token).await, Outcome::Disabled);
    assert_eq!(world.verifier.counters().fence_refusals.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn v1_a_fill_that_raced_a_revocation_is_never_served() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let held = world.primary.hold();
    let racing = verifying(&world, &token);
    FakePrimary::settle().await;
    // The fill has its snapshot; the revocation is committed and applied before its reply comes.
    world.primary.database().hold = None;
    world.primary.disable(1);
    world.round().await;
    held.add_permits(1);
    // The request that the fill was for came before the revocation: its own snapshot may answer it, and
    // claims no more than that snapshot.
    let answer = racing.await.expect("no panic").expect("up");
    assert_eq!((answer.outcome(), answer.revision().number), (Outcome::Valid, 1));
    // The fill is in the cache now, below the fence.
    assert_eq!(cached(&world, &token), None);
    assert_eq!(outcome(&world, &token).await, Outcome::Disabled);
}

#[tokio::test]
async fn v1_a_single_flight_waiter_rechecks() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let held = world.primary.hold();
    let leader = verifying(&world, &token);
    FakePrimary::settle().await;
    world.primary.database().hold = None;
    let disabled = world.primary.disable(1);
    world.round().await;
    // This request comes after the revocation and finds the flight of before it.
    let waiter = verifying(&world, &token);
    FakePrimary::settle().await;
    assert_eq!(world.primary.fills(), 1);
    held.add_permits(1);
    assert_eq!(leader.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Valid));
    let answer = waiter.await.expect("no panic").expect("up");
    assert_eq!((answer.outcome(), answer.revision().number), (Outcome::Disabled, disabled));
}

#[tokio::test]
async fn v1_a_waiter_whose_lease_lapsed_makes_its_own_query() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let held = world.primary.hold();
    let leader = verifying(&world, &token);
    FakePrimary::settle().await;
    world.primary.database().hold = None;
    // Revoked elsewhere, not applied here, and the lease is over: the fences know nothing of it.
    world.primary.disable(1);
    world.clock.advance(LEASE_MICROS);
    let waiter = verifying(&world, &token);
    FakePrimary::settle().await;
    held.add_permits(1);
    assert_eq!(leader.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Valid));
    assert_eq!(waiter.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Disabled));
}

#[tokio::test]
async fn a_cancelled_leader_strands_no_waiter() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let held = world.primary.hold();
    let leader = verifying(&world, &token);
    FakePrimary::settle().await;
    let waiter = verifying(&world, &token);
    FakePrimary::settle().await;
    leader.abort();
    assert!(leader.await.is_err());
    held.add_permits(1);
    assert_eq!(waiter.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Valid));
    assert_eq!(world.primary.fills(), 1);
}

#[tokio::test]
async fn a_lapsed_lease_sends_every_request_to_the_database() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.clock.advance(LEASE_MICROS);
    for asked in 2..5 {
        assert_eq!(cached(&world, &token), None);
        assert_eq!(outcome(&world, &token).await, Outcome::Valid);
        assert_eq!(world.primary.fills(), asked);
    }
    world.primary.disable(1);
    assert_eq!(outcome(&world, &token).await, Outcome::Disabled);
}

#[tokio::test]
async fn before_the_follower_started_the_database_decides() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    assert_eq!(world.primary.fills(), 2);
    // What was read then is not served later.
    world.round().await;
    assert_eq!(cached(&world, &token), None);
}

#[tokio::test]
async fn v2_an_infrastructure_error_is_unavailable_not_unknown() {
    let world = World::started().await;
    let nowhere = token(9);
    world.primary.database().down = true;
    let answer = world.verifier.verify(nowhere.reveal().as_bytes(), None).await;
    assert_eq!(answer.map(|a| a.outcome()), Err(VerifyError::Unavailable));
    // And it is not remembered.
    world.primary.database().down = false;
    assert_eq!(cached(&world, &nowhere), None);
    let minted = world.primary.mint(9, facts(9));
    assert_eq!(outcome(&world, &minted).await, Outcome::Valid);
    assert_eq!(world.verifier.counters().unavailable.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn v2_a_known_token_outlives_the_database_only_as_long_as_the_lease() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.primary.database().down = true;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.clock.advance(LEASE_MICROS);
    let answer = world.verifier.verify(token.reveal().as_bytes(), None).await;
    assert_eq!(answer.map(|a| a.outcome()), Err(VerifyError::Unavailable));
}

#[tokio::test]
async fn v2_after_a_divergence_nothing_is_answered() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.primary.database().log.clear();
    assert!(world.follower.round().await.is_err());
    assert_eq!(cached(&world, &token), None);
    let answer = world.verifier.verify(token.reveal().as_bytes(), None).await;
    assert_eq!(answer.map(|a| a.outcome()), Err(VerifyError::Unavailable));
}

#[tokio::test]
async fn v2_a_fill_from_a_history_that_went_back_is_no_answer() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.primary.disable(1);
    world.round().await;
    // A standby that never got the revocation has become the primary; no round has noticed yet.
    world.primary.change(|database| {
        database.log.truncate(1);
        database.tokens.insert(token.parsed().hash(&pepper(1)), facts(1));
    });
    let answer = world.verifier.verify(token.reveal().as_bytes(), None).await;
    assert_eq!(answer.map(|a| a.outcome()), Err(VerifyError::Unavailable));
}

#[tokio::test]
async fn v1_a_stream_is_good_only_while_its_callers_entry_is() {
    let mut world = World::new();
    let end = Timestamp::from_micros(world.primary.now().as_micros() + 5_000);
    let token = world.primary.mint(1, TokenFacts { expire_time: Some(end), ..facts(1) });
    let other = world.primary.mint(2, facts(2));
    world.round().await;
    let entry = async |token: &PlainToken| {
        let answer = world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
        answer.entry().expect("known").clone()
    };
    let (expiring, disabled) = (entry(&token).await, entry(&other).await);
    assert!(world.verifier.still_good(&expiring) && world.verifier.still_good(&disabled));
    world.clock.advance(5_000);
    assert!(!world.verifier.still_good(&expiring) && world.verifier.still_good(&disabled));
    world.primary.disable(2);
    assert!(world.verifier.still_good(&disabled));
    world.round().await;
    assert!(!world.verifier.still_good(&disabled));
    let third = world.primary.mint(3, facts(3));
    let third = world.verifier.verify(third.reveal().as_bytes(), None).await.expect("up");
    let third = third.entry().expect("known").clone();
    assert!(world.verifier.still_good(&third));
    world.clock.advance(LEASE_MICROS);
    assert!(!world.verifier.still_good(&third));
}

#[tokio::test]
async fn without_a_lease_those_who_wait_together_share_the_query_of_after_their_arrival() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    world.clock.advance(LEASE_MICROS);
    let held = world.primary.hold();
    let leader = verifying(&world, &token);
    FakePrimary::settle().await;
    let waiters = [verifying(&world, &token), verifying(&world, &token), verifying(&world, &token)];
    FakePrimary::settle().await;
    held.add_permits(100);
    for answer in [leader].into_iter().chain(waiters) {
        assert_eq!(answer.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Valid));
    }
    assert_eq!(world.primary.fills(), 2);
}

#[tokio::test]
async fn v1_a_flight_from_before_the_start_answers_no_later_caller() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    let held = world.primary.hold();
    let leader = verifying(&world, &token);
    FakePrimary::settle().await;
    world.primary.database().hold = None;
    world.round().await;
    let waiter = verifying(&world, &token);
    FakePrimary::settle().await;
    assert_eq!(world.primary.fills(), 1);
    held.add_permits(1);
    for answer in [leader, waiter] {
        assert_eq!(answer.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Valid));
    }
    assert_eq!(world.primary.fills(), 2);
}

#[tokio::test]
async fn v2_a_divergence_that_is_found_while_a_fill_is_under_way_spoils_it() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let held = world.primary.hold();
    let asking = verifying(&world, &token);
    FakePrimary::settle().await;
    // Another history, longer than the one followed: the fill alone cannot show it.
    world.primary.change(|database| {
        database.hold = None;
        database.log.clear();
        database.append(Some(EventKind::ApiKeyUpdated), 8);
        database.append(Some(EventKind::ApiKeyUpdated), 8);
    });
    assert!(world.follower.round().await.is_err());
    held.add_permits(1);
    assert_eq!(asking.await.expect("no panic").map(|a| a.outcome()), Err(VerifyError::Unavailable));
    // And the database is not asked again.
    let answer = world.verifier.verify(token.reveal().as_bytes(), None).await;
    assert_eq!(answer.map(|a| a.outcome()), Err(VerifyError::Unavailable));
    assert_eq!(world.primary.fills(), 1);
}

/// Real threads: a call after a revocation was applied is never answered VALID, whatever fills and
/// flights were under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn v1_no_thread_answers_valid_after_a_revocation_was_applied() {
    const KEYS: u8 = 200;
    let mut world = World::new();
    let tokens: Arc<Vec<_>> = Arc::new((0..KEYS).map(|i| world.primary.mint(i, facts(u128::from(i)))).collect());
    world.round().await;
    let revoked = Arc::new(AtomicUsize::new(0));
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let (verifier, tokens, revoked) = (world.verifier.clone(), tokens.clone(), revoked.clone());
            tokio::spawn(async move {
                while revoked.load(Ordering::SeqCst) < tokens.len() {
                    for ahead in 0..4 {
                        let count = revoked.load(Ordering::SeqCst);
                        // The last few revoked, the one that is being revoked now, and one not yet.
                        let Some(i) = (count + ahead).checked_sub(2).filter(|i| *i < tokens.len()) else { continue };
                        let answer = verifier.verify(tokens[i].reveal().as_bytes(), None).await.expect("up");
                        assert!(i >= count || answer.outcome() == Outcome::Disabled, "{i} of {count}");
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for i in 0..KEYS {
        world.primary.disable(u128::from(i));
        world.round().await;
        revoked.store(usize::from(i) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    for thread in asking {
        thread.await.expect("V1 holds");
    }
}
