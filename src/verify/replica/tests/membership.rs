//! Joining, renewing, being gone, leaving (V1): see [`super`].

use super::*;
use crate::verify::{
    VerifyLimits,
    fake::{Call, pepper},
};

const ROUND_TRIP: i64 = 800_000;

/// A world whose follower has joined and acknowledged how far it is.
async fn settled() -> World {
    let mut world = World::started().await;
    world.round().await;
    world.primary.database().take_calls();
    world
}

/// Lets time pass until a renewal is due.
fn pass_to_renewal(world: &World) {
    world.clock.advance(lease_micros() / 4);
}

/// A round in a task of its own, so that a test can let things happen meanwhile.
fn rounding(mut world: World) -> tokio::task::JoinHandle<World> {
    tokio::spawn(async move {
        world.round().await;
        world
    })
}

fn cached(world: &World, token: &crate::domain::token::PlainToken) -> Option<Outcome> {
    world.verifier.cached(token.reveal().as_bytes(), None).map(|answer| answer.outcome())
}

#[tokio::test]
async fn v1_a_join_reads_the_head_after_it_registered() {
    let world = World::new();
    let (primary, verifier) = (world.primary.clone(), world.verifier.clone());
    let held = primary.hold_only(Call::Register);
    let joining = rounding(world);
    FakePrimary::settle().await;
    assert_eq!(primary.database().take_calls(), [Call::Register]);
    assert_eq!(primary.database().row(), Some((1, at(0, 0))), "waited for, and has applied nothing yet");
    // A mutation that commits now may have read the rows before this one was made, and does not wait for it.
    let disabled = primary.disable(1);
    held.add_permits(1);
    joining.await.expect("no panic");
    assert_eq!(verifier.applied(), Some(at(1, disabled)));
    assert_eq!(primary.database().take_calls(), [Call::Head, Call::Catalogue]);
}

#[tokio::test]
async fn v1_a_lease_counts_only_once_the_head_was_read() {
    for waits_for in [Call::Register, Call::Head, Call::Catalogue] {
        let world = World::new();
        let (primary, verifier) = (world.primary.clone(), world.verifier.clone());
        let held = primary.hold_only(waits_for);
        let joining = rounding(world);
        FakePrimary::settle().await;
        assert!(!verifier.has_lease(), "{waits_for:?}");
        held.add_permits(1);
        joining.await.expect("no panic");
        assert!(verifier.has_lease());
    }
}

#[tokio::test]
async fn v1_a_join_whose_registration_took_as_long_as_the_lease_has_none() {
    let mut world = World::new();
    world.primary.database().latency_micros = (0, lease_micros());
    world.round().await;
    assert!(!world.verifier.has_lease());
    // The next round renews, and then reads the head once more.
    world.primary.change(|database| {
        database.latency_micros = (0, 0);
        database.take_calls();
    });
    world.round().await;
    assert!(world.verifier.has_lease());
    assert_eq!(world.primary.database().take_calls(), [Call::Head, Call::Renew, Call::Head]);
}

#[tokio::test]
async fn v1_what_was_applied_is_acknowledged_at_once_and_only_once() {
    let mut world = settled().await;
    assert_eq!(world.primary.database().row(), Some((1, at(1, 0))));
    let disabled = world.primary.disable(1);
    world.round().await;
    assert_eq!(world.primary.database().row(), Some((1, at(1, disabled))));
    world.round().await;
    let calls = [Call::Head, Call::Events, Call::Acknowledge, Call::Head];
    assert_eq!(world.primary.database().take_calls(), calls);
}

#[tokio::test]
async fn a_join_is_acknowledged_by_the_next_round_which_comes_at_once() {
    let mut world = World::new();
    let result = world.follower.round().await;
    assert!(matches!(world.follower.pause_after(result), Pause::Poll(Duration::ZERO)));
    let result = world.follower.round().await;
    assert!(matches!(world.follower.pause_after(result), Pause::Poll(pause) if pause > Duration::ZERO));
}

#[tokio::test]
async fn v1_an_acknowledgement_is_sent_after_the_fences_are_up() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
    world.round().await;
    let (primary, verifier) = (world.primary.clone(), world.verifier.clone());
    let held = primary.hold_only(Call::Acknowledge);
    let disabled = primary.disable(1);
    let acknowledging = rounding(world);
    FakePrimary::settle().await;
    assert_eq!(primary.database().row(), Some((1, at(1, disabled))));
    assert!(verifier.has_lease() && verifier.cached(token.reveal().as_bytes(), None).is_none());
    held.add_permits(1);
    acknowledging.await.expect("no panic");
}

#[tokio::test]
async fn v1_a_renewal_is_counted_from_before_it_was_sent() {
    let mut world = settled().await;
    pass_to_renewal(&world);
    world.primary.database().latency_micros = (ROUND_TRIP / 2, ROUND_TRIP / 2);
    let sent = world.clock.boot_micros() + ROUND_TRIP;
    world.round().await;
    assert_eq!(world.primary.database().take_calls(), [Call::Head, Call::Renew]);
    assert_eq!(world.primary.database().row(), Some((2, at(1, 0))));
    let end = sent + lease_micros() * 99 / 100;
    world.clock.advance(end - world.clock.boot_micros() - 1);
    assert!(world.verifier.has_lease());
    world.clock.advance(1);
    assert!(!world.verifier.has_lease());
}

#[tokio::test]
async fn v1_only_a_renewal_that_succeeded_renews() {
    let mut world = settled().await;
    let end = world.clock.boot_micros() + lease_micros() * 99 / 100;
    // Neither a poll nor an acknowledgement alone, nor a renewal whose reply is lost.
    world.clock.advance(lease_micros() / 8);
    world.primary.disable(1);
    world.round().await;
    pass_to_renewal(&world);
    world.primary.database().lose_reply_to = Some(Call::Renew);
    assert!(matches!(world.follower.round().await, Err(RoundError::Unavailable(_))));
    assert_eq!(world.primary.database().row().map(|row| row.0), Some(2));
    world.clock.advance(end - world.clock.boot_micros() - 1);
    assert!(world.verifier.has_lease());
    world.clock.advance(1);
    assert!(!world.verifier.has_lease());
}

#[tokio::test]
async fn v1_a_reply_after_the_lapse_restores_nothing_until_caught_up() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
    world.round().await;
    let (primary, verifier, clock) = (world.primary.clone(), world.verifier.clone(), world.clock.clone());
    clock.advance(lease_micros());
    let held = primary.hold_only(Call::Renew);
    let late = rounding(world);
    FakePrimary::settle().await;
    // The renewal is on record and its reply on its way. A mutation goes by that did not wait: the row
    // had been evicted, and came back when PostgreSQL lost that in a crash.
    let disabled = primary.disable(1);
    primary.database().hold_only = Some(Call::Head);
    held.add_permits(1);
    FakePrimary::settle().await;
    assert!(!verifier.has_lease());
    held.add_permits(1);
    let world = late.await.expect("no panic");
    assert!(verifier.has_lease());
    assert_eq!(verifier.applied(), Some(at(1, disabled)));
    assert_eq!(cached(&world, &token), None);
}

#[tokio::test]
async fn v1_a_reply_that_comes_after_its_own_lease_is_over_restores_nothing() {
    let world = settled().await;
    pass_to_renewal(&world);
    let (primary, clock) = (world.primary.clone(), world.clock.clone());
    let held = primary.hold_only(Call::Renew);
    let late = rounding(world);
    FakePrimary::settle().await;
    clock.advance(lease_micros());
    held.add_permits(1);
    let mut world = late.await.expect("no panic");
    assert!(!world.verifier.has_lease());
    primary.database().hold = None;
    world.round().await;
    assert!(world.verifier.has_lease());
}

#[tokio::test]
async fn a_row_that_is_gone_means_join_again() {
    let world = settled().await;
    let first = *world.primary.database().replicas.keys().next().expect("registered");
    pass_to_renewal(&world);
    world.primary.database().replicas.clear();
    let (primary, verifier) = (world.primary.clone(), world.verifier.clone());
    let held = primary.hold_only(Call::Register);
    let joining = rounding(world);
    FakePrimary::settle().await;
    // No mutation waits for this replica any more: the lease went first.
    assert!(!verifier.has_lease());
    held.add_permits(1);
    let mut world = joining.await.expect("no panic");
    assert!(verifier.has_lease());
    assert_ne!(*primary.database().replicas.keys().next().expect("registered"), first, "a new incarnation");
    let calls = primary.database().take_calls();
    assert_eq!(calls, [Call::Head, Call::Renew, Call::Deregister, Call::Register, Call::Head, Call::Catalogue]);
    world.round().await;
    assert_eq!(primary.database().row(), Some((1, at(1, 0))));
}

#[tokio::test]
async fn v1_what_was_remembered_before_a_join_is_below_its_fence() {
    let mut world = World::new();
    let (token, other) = (world.primary.mint(1, facts(1)), world.primary.mint(2, facts(2)));
    world.round().await;
    world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
    world.verifier.verify(other.reveal().as_bytes(), None).await.expect("up");
    world.round().await;
    world.primary.change(|database| database.replicas.clear());
    pass_to_renewal(&world);
    // Its event is not applied by the join, which starts after it: the global fence covers all.
    let held = world.primary.hold_only(Call::Renew);
    let (primary, joining) = (world.primary.clone(), rounding(world));
    FakePrimary::settle().await;
    primary.disable(1);
    held.add_permits(1);
    let world = joining.await.expect("no panic");
    assert!(world.verifier.has_lease());
    assert_eq!((cached(&world, &token), cached(&world, &other)), (None, None));
}

#[tokio::test]
async fn a_registration_whose_reply_was_lost_is_taken_back_by_the_next() {
    let mut world = World::new();
    world.primary.database().lose_reply_to = Some(Call::Register);
    assert!(matches!(world.follower.round().await, Err(RoundError::Unavailable(_))));
    assert!(!world.verifier.has_lease());
    world.round().await;
    assert!(world.verifier.has_lease());
    assert_eq!(world.primary.database().replicas.len(), 1);
}

#[tokio::test]
async fn in_quiet_times_only_renewals_are_written_at_least_every_third_of_the_lease() {
    let mut world = settled().await;
    let (start, mut last) = (world.clock.boot_micros(), world.clock.boot_micros());
    let mut renewals = 0;
    while world.clock.boot_micros() < start + 10 * lease_micros() {
        let result = world.follower.round().await;
        let Pause::Poll(pause) = world.follower.pause_after(result) else { panic!("the database is well") };
        for call in world.primary.database().take_calls() {
            assert!(matches!(call, Call::Head | Call::Renew), "{call:?}");
            if call == Call::Renew {
                renewals += 1;
                assert!(world.clock.boot_micros() - last <= lease_micros() / 3);
                last = world.clock.boot_micros();
            }
        }
        world.clock.advance(i64::try_from(pause.as_micros()).expect("short").max(1));
        assert!(world.verifier.has_lease());
    }
    assert!((30..=40).contains(&renewals), "{renewals}");
}

#[tokio::test]
async fn v1_a_call_that_hangs_is_given_up_well_before_the_lease_ends() {
    let mut world =
        World::with(vec![pepper(1)], VerifyLimits { lease: Duration::from_millis(150), ..VerifyLimits::default() });
    world.round().await;
    let _held = world.primary.hold();
    let started = Instant::now();
    assert!(matches!(world.follower.round().await, Err(RoundError::Unavailable(_))));
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_clean_stop_gives_up_the_lease_and_then_the_row_and_does_not_wait_for_ever() {
    let world = World::new();
    let (primary, verifier) = (world.primary.clone(), world.verifier.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.follower.run(async move { drop(stopped.await) }));
    assert!(verifier.await_applied(at(1, 0), Instant::now() + Duration::from_secs(30)).await);
    FakePrimary::settle().await;
    assert!(verifier.has_lease());
    let _held = primary.hold_only(Call::Deregister);
    stop.send(()).expect("still running");
    FakePrimary::settle().await;
    assert!(!verifier.has_lease() && !running.is_finished());
    assert_eq!(primary.database().row(), None);
    tokio::time::timeout(Duration::from_secs(30), running).await.expect("ends").expect("no panic");
}

#[tokio::test]
async fn v2_who_lacks_a_pepper_in_use_has_neither_row_nor_lease_and_joins_once_it_is_not_lacking() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.primary.change(|database| database.missing_peppers = vec!["p2".into()]);
    for _ in 0..3 {
        let refused = world.follower.round().await.expect_err("a pepper is missing");
        let RoundError::Unavailable(Unavailable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.to_string().contains("p2"), "{why}");
        assert_eq!(world.primary.database().row(), None, "no mutation waits for it");
    }
    assert!(!world.verifier.has_lease());
    // What is found is known; what is not found may be under the other pepper.
    let found = world.verifier.verify(token.reveal().as_bytes(), None).await.expect("found");
    assert_eq!(found.outcome(), Outcome::Valid);
    let unknown = crate::verify::fake::token(9);
    assert_eq!(
        world.verifier.verify(unknown.reveal().as_bytes(), None).await.err(),
        Some(crate::verify::VerifyError::Unavailable)
    );
    world.primary.change(|database| database.missing_peppers.clear());
    world.round().await;
    assert!(world.verifier.has_lease());
}

#[tokio::test]
async fn a_join_that_fails_after_it_registered_leaves_no_row_to_wait_for() {
    let mut world = World::new();
    world.primary.change(|database| database.lose_reply_to = Some(Call::Head));
    assert!(world.follower.round().await.is_err());
    assert_eq!(world.primary.database().row(), None);
}
