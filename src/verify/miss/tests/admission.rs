use super::*;
use crate::{
    domain::{
        time::Timestamp,
        token::PlainToken,
        verification::{Outcome, TokenFacts},
    },
    verify::{
        VerifyError,
        clock::ManualClock,
        fake::{FakePrimary, LEASE, World, facts, pepper, token},
    },
};

/// 10 unknown tokens a second, 4 at once; one ended a second beside, 4 at once.
async fn world() -> World {
    let limits = VerifyLimits {
        unknown_loads_per_second_max: 10,
        unknown_loads_burst_max: 4,
        ended_loads_per_second_max: 1,
        misses_in_flight_max: 4,
        lease: LEASE,
        ..VerifyLimits::default()
    };
    let mut world = World::with(vec![pepper(1)], limits);
    world.round().await;
    world
}

async fn ask(world: &World, token: &PlainToken) -> Result<Outcome, VerifyError> {
    world.verifier.verify(token.reveal().as_bytes(), None).await.map(|answer| answer.outcome())
}

/// Asks for unknown tokens until one is turned away.
async fn flood(world: &World) {
    let mut unknown = (100..=255).map(token);
    while ask(world, &unknown.next().expect("it is turned away before")).await != Err(VerifyError::Overloaded) {}
}

fn admission(unknown_loads_per_second_max: u32, unknown_loads_burst_max: usize) -> Arc<LoadAdmission> {
    let rates = VerifyLimits { unknown_loads_per_second_max, unknown_loads_burst_max, ..VerifyLimits::default() };
    LoadAdmission::new(&VerifyLimits { misses_in_flight_max: 1, ..rates })
}

#[test]
fn what_is_kept_comes_back_at_the_rate_and_no_more_than_fits() {
    let (clock, admission) = (ManualClock::at(1_000_000), admission(10, 3));
    for pause_s in [0, 1_000] {
        clock.advance(pause_s * 1_000_000);
        (0..3).for_each(|_| admission.enter(&clock).expect("full").keep());
        assert!(admission.enter(&clock).is_none());
    }
    clock.advance(99_999);
    assert!(admission.enter(&clock).is_none());
    clock.advance(1);
    admission.enter(&clock).expect("one").keep();
    assert!(admission.enter(&clock).is_none());
}

#[test]
fn what_is_given_back_can_be_paid_again_at_once_and_only_once() {
    let (clock, admission) = (ManualClock::at(1_000_000), admission(10, 2));
    for _ in 0..100 {
        let fares = [admission.enter(&clock), admission.enter(&clock)];
        assert!(fares.iter().all(Option::is_some) && admission.enter(&clock).is_none());
    }
    // Given back after a pause, it is not more than fits.
    let fares = [admission.enter(&clock), admission.enter(&clock)];
    clock.advance(60_000_000);
    drop(fares);
    (0..2).for_each(|_| admission.enter(&clock).expect("full").keep());
    assert!(admission.enter(&clock).is_none());
}

#[tokio::test]
async fn v2_a_flood_is_turned_away_before_it_reaches_the_database_and_is_never_unknown() {
    let world = world().await;
    for byte in 1..=4 {
        assert_eq!(ask(&world, &token(byte)).await, Ok(Outcome::Unknown));
    }
    for byte in 5..=255 {
        assert_eq!(ask(&world, &token(byte)).await, Err(VerifyError::Overloaded));
    }
    assert_eq!(world.primary.fills(), 4);
    assert_eq!(world.verifier.counters().overloaded.load(Ordering::Relaxed), 251);
    // What is remembered costs nothing, and so much may be asked as time allows.
    assert_eq!(ask(&world, &token(1)).await, Ok(Outcome::Unknown));
    world.clock.advance(100_000);
    assert_eq!(ask(&world, &token(5)).await, Ok(Outcome::Unknown));
    assert_eq!(ask(&world, &token(6)).await, Err(VerifyError::Overloaded));
}

#[tokio::test]
async fn a_cold_start_costs_nothing_however_many_tokens_are_good() {
    let mut world = world().await;
    let good: Vec<_> = (1..=255).map(|byte| world.primary.mint(byte, facts(u128::from(byte)))).collect();
    world.round().await;
    for token in &good {
        assert_eq!(ask(&world, token).await, Ok(Outcome::Valid));
    }
}

#[tokio::test]
async fn a_flood_does_not_turn_away_a_token_that_memory_knows() {
    let mut world = world().await;
    let good = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(ask(&world, &good).await, Ok(Outcome::Valid));
    flood(&world).await;
    assert_eq!(ask(&world, &good).await, Ok(Outcome::Valid));
    // Its fence is up: it must be read again.
    world.primary.disable(1);
    world.round().await;
    assert_eq!(ask(&world, &good).await, Ok(Outcome::Disabled));
}

#[tokio::test]
async fn a_good_token_that_is_cold_gets_through_a_flood_in_time() {
    let mut world = world().await;
    let good = [1, 2].map(|byte| world.primary.mint(byte, facts(u128::from(byte))));
    world.round().await;
    flood(&world).await;
    assert_eq!(ask(&world, &good[0]).await, Err(VerifyError::Overloaded));
    world.clock.advance(100_000);
    for token in &good {
        assert_eq!(ask(&world, token).await, Ok(Outcome::Valid));
    }
}

#[tokio::test]
async fn not_knowing_costs_nothing() {
    let world = world().await;
    world.primary.database().down = true;
    for byte in 1..=20 {
        assert_eq!(ask(&world, &token(byte)).await, Err(VerifyError::Unavailable));
    }
    world.primary.database().down = false;
    assert_eq!(ask(&world, &token(1)).await, Ok(Outcome::Unknown));
}

#[tokio::test]
async fn who_joins_a_load_pays_nothing() {
    let world = world().await;
    let held = world.primary.hold();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (verifier, asked) = (world.verifier.clone(), token(1));
            tokio::spawn(async move { verifier.verify(asked.reveal().as_bytes(), None).await.map(|a| a.outcome()) })
        })
        .collect();
    FakePrimary::settle().await;
    held.add_permits(10);
    for answer in waiting {
        assert_eq!(answer.await.expect("no panic"), Ok(Outcome::Unknown));
    }
    for byte in 2..=4 {
        assert_eq!(ask(&world, &token(byte)).await, Ok(Outcome::Unknown));
    }
    assert_eq!(ask(&world, &token(5)).await, Err(VerifyError::Overloaded));
}

#[tokio::test]
async fn v2_a_flood_of_ended_tokens_is_turned_away_too_beyond_a_few() {
    let mut world = world().await;
    let rotated = |id: u128| TokenFacts { token_end_time: Some(Timestamp::from_micros(1)), ..facts(id) };
    let good = world.primary.mint(1, facts(1));
    let cold = world.primary.mint(2, facts(2));
    let ended: Vec<_> = (3..=255).map(|byte| world.primary.mint(byte, rotated(u128::from(byte)))).collect();
    world.round().await;
    assert_eq!(ask(&world, &good).await, Ok(Outcome::Valid));
    let before = world.primary.fills();
    let mut turned_away = 0;
    for token in &ended {
        match ask(&world, token).await {
            Ok(outcome) => assert_eq!(outcome, Outcome::Rotated),
            Err(error) => {
                assert_eq!(error, VerifyError::Overloaded);
                turned_away += 1;
            }
        }
        assert_eq!(ask(&world, &good).await, Ok(Outcome::Valid));
    }
    // Four that cost nothing, and four that are paid for.
    assert_eq!((world.primary.fills() - before, turned_away), (8, ended.len() - 8));
    // Those that were read are remembered, and cost nothing; and good ones get through in time.
    assert_eq!(ask(&world, &ended[0]).await, Ok(Outcome::Rotated));
    world.clock.advance(100_000);
    assert_eq!(ask(&world, &cold).await, Ok(Outcome::Valid));
}
