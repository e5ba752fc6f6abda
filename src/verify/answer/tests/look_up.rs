//! What happens between sending for an entry and answering: nothing of it may be seen in an answer too late (V1).

use std::sync::Arc;

use super::*;
use crate::{
    domain::token::PlainToken,
    verify::{
        cache::last_use::LastUse,
        fake::{self, LEASE, World, facts},
    },
};

/// A world that remembers a token as VALID.
async fn remembered() -> (World, PlainToken) {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    let found = world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up");
    assert_eq!(found.outcome(), Outcome::Valid);
    (world, token)
}

/// What memory says of a token that was prefetched before something happened.
async fn answered_after(
    world: &mut World,
    token: &PlainToken,
    happens: impl AsyncFnOnce(&mut World),
) -> Option<Outcome> {
    let verifier = world.verifier.clone();
    let reader = verifier.cache_reader();
    let pending = reader.prefetch(token.reveal().as_bytes());
    happens(world).await;
    let (memory, mut buffer) = (reader.now()?, LookupBuffer::default());
    let answer = memory.answer(&pending, None::<&Requirement>, &mut buffer)?;
    Some(answer.outcome())
}

fn many_more(world: &World) {
    for number in 0..20_000_u64 {
        // Uniform, as digests are.
        let digest = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let entry = Entry::new(HashedToken::from_bytes(digest), facts(9), fake::no_catalogue(), RevisionStamp::ZERO);
        world.verifier.loader.cache.insert(&entry, LastUse::NEVER);
    }
}

#[tokio::test]
async fn a_token_that_was_sent_for_is_answered() {
    let (mut world, token) = remembered().await;
    assert_eq!(answered_after(&mut world, &token, async |_| {}).await, Some(Outcome::Valid));
}

#[tokio::test]
async fn v1_a_withdrawal_while_an_entry_is_sent_for_is_seen() {
    let (mut world, token) = remembered().await;
    let disabled = async |world: &mut World| {
        world.primary.disable(1);
        world.round().await;
    };
    assert_eq!(answered_after(&mut world, &token, disabled).await, None);
}

#[tokio::test]
async fn v1_a_withdrawal_is_seen_in_tables_that_were_replaced_meanwhile() {
    let (mut world, token) = remembered().await;
    let grown_and_disabled = async |world: &mut World| {
        let before = world.verifier.cache_reader().tables.table(0).clone();
        many_more(world);
        let place = world.verifier.loader.cache.tables();
        assert!(!Arc::ptr_eq(&before, place.table(0)), "the tables grew");
        drop(place);
        world.primary.disable(1);
        world.round().await;
    };
    assert_eq!(answered_after(&mut world, &token, grown_and_disabled).await, None);
}

#[tokio::test]
async fn v1_tables_that_were_replaced_meanwhile_still_answer_what_stands() {
    let (mut world, token) = remembered().await;
    assert_eq!(answered_after(&mut world, &token, async |world| many_more(world)).await, Some(Outcome::Valid));
}

#[tokio::test]
async fn v1_a_lease_that_lapses_while_an_entry_is_sent_for_ends_the_answer() {
    let (mut world, token) = remembered().await;
    let lapsed = async |world: &mut World| world.clock.advance(LEASE.as_micros() as i64);
    assert_eq!(answered_after(&mut world, &token, lapsed).await, None);
}

#[tokio::test]
async fn v2_a_history_that_is_accepted_while_an_entry_is_sent_for_ends_the_answer() {
    let (mut world, token) = remembered().await;
    let accepted = async |world: &mut World| {
        world.primary.database().accept_history();
        world.round().await;
    };
    assert_eq!(answered_after(&mut world, &token, accepted).await, None);
}
