//! Another database than the log was written in (V2): see [`super`].

use super::*;
use crate::verify::{VerifyError, fake::Call};

async fn verify(world: &World, token: &crate::domain::token::PlainToken) -> Result<Outcome, VerifyError> {
    world.verifier.verify(token.reveal().as_bytes(), None).await.map(|answer| answer.outcome())
}

fn restored(result: Result<(), RoundError>) {
    assert!(matches!(result, Err(RoundError::OtherDatabase(_))), "{result:?}");
}

#[tokio::test]
async fn v2_a_restore_with_every_replica_stopped_is_unavailable_until_accepted() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.primary.database().identities = (1, 2);
    for _ in 0..3 {
        restored(world.follower.round().await);
        assert_eq!(world.verifier.follower_state(), FollowerState::OtherDatabase);
        assert!(!world.verifier.in_service());
        assert_eq!(verify(&world, &token).await, Err(VerifyError::Unavailable));
        assert_eq!(world.primary.database().row(), None, "no mutation waits for a replica that answers nothing");
    }
    assert_eq!(world.primary.fills(), 0);
    world.primary.database().accept_history();
    world.round().await;
    assert!(world.verifier.has_lease());
    assert_eq!(world.verifier.applied(), Some(at(2, 2)));
    assert_eq!(verify(&world, &token).await, Ok(Outcome::Valid));
}

#[tokio::test]
async fn v2_a_restore_under_a_running_replica_ends_what_it_remembers_at_once() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(verify(&world, &token).await, Ok(Outcome::Valid));
    world.primary.database().identities = (1, 2);
    restored(world.follower.round().await);
    assert!(world.verifier.cached(token.reveal().as_bytes(), None).is_none());
    assert_eq!(verify(&world, &token).await, Err(VerifyError::Unavailable));
    assert_eq!(world.primary.database().row(), None);
    // While it stays another one, no row is made in it.
    world.primary.database().take_calls();
    restored(world.follower.round().await);
    assert_eq!(world.primary.database().take_calls(), [Call::Head]);
    world.primary.database().accept_history();
    world.round().await;
    assert_eq!(verify(&world, &token).await, Ok(Outcome::Valid));
    assert_eq!(world.verifier.applied(), Some(at(2, 2)));
}

#[tokio::test]
async fn v2_the_right_database_that_is_back_is_joined_as_a_new_incarnation() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    verify(&world, &token).await.expect("up");
    world.primary.database().identities = (1, 2);
    restored(world.follower.round().await);
    // Meanwhile no mutation waited for this replica.
    world.primary.database().identities = (1, 1);
    world.primary.disable(1);
    world.round().await;
    assert!(world.verifier.has_lease());
    assert_eq!(verify(&world, &token).await, Ok(Outcome::Disabled));
}

#[tokio::test]
async fn v2_a_history_that_had_diverged_has_not_come_back_with_its_database() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.primary.database().append(Some(EventKind::ApiKeyUpdated), 1);
    world.round().await;
    world.primary.database().log.truncate(1);
    diverged(world.follower.round().await);
    world.primary.database().identities = (1, 2);
    restored(world.follower.round().await);
    assert_eq!(world.verifier.follower_state(), FollowerState::Diverged);
    world.primary.database().identities = (1, 1);
    assert_eq!(diverged(world.follower.round().await), Divergence::Before);
    assert_eq!(verify(&world, &token).await, Err(VerifyError::Unavailable));
}
