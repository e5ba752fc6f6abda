use tokio::time::Instant;

use super::*;
use crate::{
    domain::{log::revision::Revision, permissions::catalogue::Catalogue, verification::Outcome},
    verify::{
        clock::Clock,
        fake::{FakePrimary, LEASE, World, facts, stamp},
    },
};

const fn at(epoch: i64, number: i64) -> Revision {
    Revision { epoch, number }
}

fn lease_micros() -> i64 {
    i64::try_from(LEASE.as_micros()).expect("short")
}

fn diverged(result: Result<(), RoundError>) -> Divergence {
    match result.expect_err("diverges") {
        RoundError::Diverged(divergence) => divergence,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_start_takes_the_head_for_applied_and_refuses_what_was_read_before() {
    let mut world = World::new();
    world.primary.mint(1, facts(1));
    assert_eq!(world.verifier.follower_state(), FollowerState::Starting);
    assert!(!world.verifier.has_lease());
    world.round().await;
    assert_eq!(world.verifier.applied(), Some(Revision { epoch: 1, number: 1 }));
    assert!(world.verifier.has_lease());
    let fences = &world.follower.replica.fences;
    assert!(!fences.serves_absence(stamp(0)) && fences.serves_absence(stamp(1)));
}

#[tokio::test]
async fn a_round_applies_every_batch_up_to_the_head() {
    let mut world = World::started().await;
    for _ in 0..2_500 {
        world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    }
    world.round().await;
    assert_eq!(world.verifier.applied().map(|r| r.number), Some(2_500));
}

#[tokio::test]
async fn a_lease_counts_from_before_the_round_was_sent() {
    let mut world = World::new();
    world.primary.database().latency_micros = (400_000, 400_000);
    let sent = world.clock.boot_micros();
    world.round().await;
    let end = sent + lease_micros() * 99 / 100;
    world.clock.advance(end - world.clock.boot_micros() - 1);
    assert!(world.verifier.has_lease());
    world.clock.advance(1);
    assert!(!world.verifier.has_lease());
}

#[tokio::test]
async fn a_round_that_fails_renews_nothing_and_the_lease_lapses_by_itself() {
    let mut world = World::started().await;
    world.primary.database().down = true;
    assert!(matches!(world.follower.round().await, Err(RoundError::Unavailable(_))));
    assert!(world.verifier.has_lease());
    world.clock.advance(lease_micros());
    assert!(!world.verifier.has_lease());
    world.primary.database().down = false;
    world.round().await;
    assert!(world.verifier.has_lease());
}

#[tokio::test]
async fn a_follower_that_sees_a_gap_diverges() {
    let mut world = World::started().await;
    for _ in 0..3 {
        world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    }
    world.primary.database().log.remove(1);
    assert_eq!(diverged(world.follower.round().await), Divergence::Gap { applied: 1 });
    assert_eq!(world.verifier.follower_state(), FollowerState::Diverged);
    assert!(!world.verifier.has_lease());
    // Nothing mends it but an operator.
    assert_eq!(diverged(world.follower.round().await), Divergence::Before);
}

#[tokio::test]
async fn a_follower_whose_events_are_gone_diverges() {
    let mut world = World::new();
    world.primary.mint(1, facts(1));
    world.round().await;
    world.primary.database().log.clear();
    assert_eq!(diverged(world.follower.round().await), Divergence::Regress { seen: at(1, 1), head: at(1, 0) });
}

#[tokio::test]
async fn a_follower_diverges_when_another_history_has_the_same_length() {
    let mut world = World::new();
    world.primary.mint(1, facts(1));
    world.round().await;
    world.primary.change(|database| {
        database.log.clear();
        database.append(Some(EventKind::ApiKeyDeleted), 9);
    });
    assert_eq!(diverged(world.follower.round().await), Divergence::Fork { number: 1 });
}

#[tokio::test]
async fn a_follower_diverges_when_another_history_is_longer() {
    let mut world = World::new();
    world.primary.mint(1, facts(1));
    world.round().await;
    world.primary.change(|database| {
        database.log.clear();
        database.append(Some(EventKind::ApiKeyDeleted), 9);
        database.append(Some(EventKind::ApiKeyUpdated), 9);
    });
    assert_eq!(diverged(world.follower.round().await), Divergence::Fork { number: 2 });
}

#[tokio::test]
async fn v2_another_histories_head_does_not_set_the_time() {
    let mut world = World::started().await;
    let before = world.verifier.database_time();
    world.primary.change(|database| {
        database.epoch = 0;
        database.skew += 1_000_000;
    });
    diverged(world.follower.round().await);
    assert_eq!(world.verifier.database_time(), before);
}

#[tokio::test]
async fn an_applied_catalogue_is_read_again() {
    let mut world = World::started().await;
    let revision = Revision { epoch: 1, number: 1 };
    world.primary.database().append(Some(EventKind::CatalogueApplied), 1);
    world.primary.database().catalogue = Arc::new(Catalogue::new(revision, vec![]));
    world.round().await;
    assert_eq!(world.verifier.catalogue().revision(), revision);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_raises_every_fence() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
    world.primary.database().append(None, 1);
    world.round().await;
    assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_none());
}

#[tokio::test]
async fn a_running_follower_is_woken_and_gives_the_lease_up_when_it_stops() {
    let world = World::new();
    let token = world.primary.mint(1, facts(1));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(world.follower.run(async move { drop(stopped.await) }));
    let deadline = Instant::now() + Duration::from_secs(30);
    assert!(world.verifier.await_number(1, deadline).await);
    assert!(world.verifier.has_lease());
    // Waiting wakes it: the poll interval is far longer than this test should take.
    let disabled = world.primary.disable(1);
    assert!(world.verifier.await_number(disabled, deadline).await);
    let answer = world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
    assert_eq!(answer.outcome(), Outcome::Disabled);
    stop.send(()).expect("still running");
    running.await.expect("no panic");
    assert!(!world.verifier.has_lease());
}

#[test]
fn the_back_off_is_bounded() {
    assert_eq!(back_off(1), BACK_OFF_MIN);
    assert_eq!(back_off(2), BACK_OFF_MIN * 2);
    assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
}

#[tokio::test]
async fn a_follower_diverges_when_the_events_do_not_lead_to_the_head_that_was_read() {
    let mut world = World::started().await;
    world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    let (primary, held) = (world.primary.clone(), world.primary.hold());
    let follower = tokio::spawn(async move { world.follower.round().await });
    FakePrimary::settle().await;
    // The head was read; before the events are, a fail-over replaces its event by another.
    primary.change(|database| {
        database.log.clear();
        database.append(Some(EventKind::ApiKeyDeleted), 9);
    });
    held.add_permits(100);
    assert_eq!(diverged(follower.await.expect("no panic")), Divergence::Fork { number: 1 });
}

#[path = "history.rs"]
mod history;
#[path = "membership.rs"]
mod membership;
#[path = "restored.rs"]
mod restored;
