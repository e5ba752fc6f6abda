//! Other histories, and epochs (V2): see [`super`].

use super::*;
use crate::{
    domain::token::PlainToken,
    verify::{Verification, VerifyError, fake::Call},
};

async fn verify(world: &World, token: &PlainToken) -> Result<Verification, VerifyError> {
    world.verifier.verify(token.reveal().as_bytes(), None).await
}

/// A world that remembers two tokens, and has then lost the last events of three to a fail-over, among
/// them the second key's creation.
async fn lost_events() -> (World, PlainToken, PlainToken) {
    let mut world = World::new();
    let (kept, lost) = (world.primary.mint(1, facts(1)), world.primary.mint(2, facts(2)));
    world.primary.database().append(Some(EventKind::ApiKeyUpdated), 2);
    world.round().await;
    for token in [&kept, &lost] {
        assert_eq!(verify(&world, token).await.map(|answer| answer.outcome()), Ok(Outcome::Valid));
    }
    world.primary.change(|database| {
        database.log.truncate(1);
        database.tokens.retain(|_, token| token.key_id == facts(1).key_id);
    });
    (world, kept, lost)
}

#[tokio::test]
async fn v2_another_history_is_unavailable_until_accepted() {
    let (mut world, kept, lost) = lost_events().await;
    assert_eq!(diverged(world.follower.round().await), Divergence::Regress { seen: at(1, 3), head: at(1, 1) });
    assert_eq!(world.primary.database().row(), None, "no mutation waits for a replica that answers nothing");
    for _ in 0..3 {
        assert_eq!(diverged(world.follower.round().await), Divergence::Before);
        assert!(!world.verifier.in_service());
        for token in [&kept, &lost] {
            assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_none());
            assert_eq!(verify(&world, token).await.map(|answer| answer.outcome()), Err(VerifyError::Unavailable));
        }
        // Not even if the history that was followed comes back by itself: others may have seen the other.
        world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    }
    assert_eq!(world.primary.fills(), 2);
}

#[tokio::test]
async fn an_accepted_history_starts_afresh_without_a_restart() {
    let (mut world, kept, lost) = lost_events().await;
    diverged(world.follower.round().await);
    world.primary.database().accept_history();
    world.round().await;
    // The new history is shorter than what was applied of the old one; its epoch is above all of it.
    assert_eq!(world.verifier.applied(), Some(at(2, 2)));
    assert_eq!(world.verifier.follower_state(), FollowerState::Following);
    assert!(world.verifier.has_lease());
    for (token, outcome) in [(&kept, Outcome::Valid), (&lost, Outcome::Unknown)] {
        assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_none());
        let answer = verify(&world, token).await.expect("up");
        assert_eq!((answer.outcome(), answer.revision()), (outcome, at(2, 2)));
        assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_some());
    }
    world.round().await;
    assert_eq!(world.primary.database().row(), Some((1, at(2, 2))));
    // And it is followed like any other.
    let disabled = world.primary.disable(1);
    world.round().await;
    assert_eq!(verify(&world, &kept).await.map(|answer| answer.outcome()), Ok(Outcome::Disabled));
    assert_eq!(world.verifier.applied(), Some(at(2, disabled)));
}

#[tokio::test]
async fn an_epoch_that_starts_while_all_is_well_is_joined_in_one_round() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    verify(&world, &token).await.expect("up");
    world.primary.database().accept_history();
    world.round().await;
    assert_eq!(world.verifier.applied(), Some(at(2, 2)));
    assert_eq!(world.primary.database().row(), Some((1, at(0, 0))), "the old row is not left behind");
    assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_none());
    assert_eq!(verify(&world, &token).await.map(|answer| answer.outcome()), Ok(Outcome::Valid));
}

#[tokio::test]
async fn v2_a_fill_of_an_epoch_that_is_over_is_neither_served_nor_remembered() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let held = world.primary.hold_only(Call::Fill);
    let (verifier, bytes) = (world.verifier.clone(), token.reveal().as_bytes().to_vec());
    let asking = tokio::spawn(async move { verifier.verify(&bytes, None).await });
    FakePrimary::settle().await;
    world.primary.change(|database| {
        database.hold = None;
        database.accept_history();
    });
    world.round().await;
    held.add_permits(1);
    let answer = asking.await.expect("no panic");
    assert_eq!(answer.map(|answer| answer.outcome()), Err(VerifyError::Unavailable));
    assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_none());
    assert_eq!(verify(&world, &token).await.map(|answer| answer.outcome()), Ok(Outcome::Valid));
    assert_eq!(world.primary.fills(), 2);
}

#[tokio::test]
async fn v2_a_fill_of_an_epoch_that_is_not_followed_yet_is_no_answer() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    world.primary.database().accept_history();
    assert_eq!(verify(&world, &token).await.map(|answer| answer.outcome()), Err(VerifyError::Unavailable));
    world.round().await;
    assert_eq!(verify(&world, &token).await.map(|answer| answer.outcome()), Ok(Outcome::Valid));
}

#[tokio::test]
async fn v2_a_catalogue_of_a_lost_history_is_replaced_even_by_one_of_the_same_revision() {
    let mut world = World::new();
    let catalogue = |number| Arc::new(Catalogue::new(at(1, number), vec![]));
    let (lost, kept) = (catalogue(9), catalogue(9));
    world.primary.database().catalogue = lost.clone();
    world.round().await;
    assert!(Arc::ptr_eq(&world.verifier.catalogue(), &lost));
    world.primary.change(|database| {
        database.catalogue = kept.clone();
        database.accept_history();
    });
    world.round().await;
    assert!(Arc::ptr_eq(&world.verifier.catalogue(), &kept));
    // One that was asked for in the old epoch and comes late does not come back.
    let late = world.follower.replica.adopt(1, lost.clone());
    assert!(Arc::ptr_eq(&late, &lost) && Arc::ptr_eq(&world.verifier.catalogue(), &kept));
}

#[tokio::test]
async fn v2_a_head_below_what_a_fill_has_seen_is_another_history() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    // Not applied yet, but read by a fill, and then lost.
    world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    verify(&world, &token).await.expect("up");
    world.primary.database().log.truncate(2);
    assert_eq!(diverged(world.follower.round().await), Divergence::Regress { seen: at(1, 3), head: at(1, 2) });
}

#[tokio::test]
async fn events_beyond_the_head_that_was_read_wait_for_the_next_round() {
    let mut world = World::started().await;
    world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    let (primary, held) = (world.primary.clone(), world.primary.hold_only(Call::Head));
    let rounding = tokio::spawn(async move {
        world.round().await;
        world
    });
    FakePrimary::settle().await;
    // Before the events are read, the log goes on, in another epoch.
    primary.database().accept_history();
    held.add_permits(100);
    let mut world = rounding.await.expect("no panic");
    assert_eq!(world.verifier.applied(), Some(at(1, 1)));
    world.round().await;
    assert_eq!(world.verifier.applied(), Some(at(2, 2)));
}

#[tokio::test]
async fn v2_to_join_again_is_no_way_into_another_history() {
    let fork = |longer: bool| {
        move |database: &mut crate::verify::fake::Database| {
            database.log.clear();
            database.append(Some(EventKind::ApiKeyDeleted), 9);
            (0..u8::from(longer)).for_each(|_| _ = database.append(Some(EventKind::ApiKeyUpdated), 9));
        }
    };
    for (longer, number) in [(false, 1), (true, 2)] {
        let mut world = World::new();
        world.primary.mint(1, facts(1));
        world.round().await;
        world.primary.database().replicas.clear();
        let (primary, held) = (world.primary.clone(), world.primary.hold_only(Call::Register));
        let joining = tokio::spawn(async move { world.follower.round().await });
        FakePrimary::settle().await;
        primary.change(fork(longer));
        held.add_permits(1);
        assert_eq!(diverged(joining.await.expect("no panic")), Divergence::Fork { number });
    }
}

#[tokio::test]
async fn v2_a_database_that_does_not_have_what_was_applied_is_another_history() {
    let mut world = World::new();
    world.primary.mint(1, facts(1));
    world.round().await;
    let (primary, held) = (world.primary.clone(), world.primary.hold_only(Call::Head));
    let telling = tokio::spawn(async move { world.follower.round().await });
    FakePrimary::settle().await;
    // The head was read as it was applied; the acknowledgement comes to another primary.
    primary.change(|database| database.log.clear());
    held.add_permits(1);
    assert_eq!(diverged(telling.await.expect("no panic")), Divergence::Refused { applied: at(1, 1) });
}

#[tokio::test]
async fn a_log_that_outgrows_a_stamp_is_not_followed() {
    let mut world = World::started().await;
    world.primary.database().epoch = Revision::EPOCH_MAX + 1;
    assert!(matches!(diverged(world.follower.round().await), Divergence::Beyond { .. }));
    assert!(!world.verifier.has_lease());
}
