use std::sync::atomic::Ordering;

use super::*;
use crate::{
    domain::{
        api_key::ApiKeyState,
        id::{AccountId, TeamId},
        log::event::EventKind,
        token::{FormedToken, PlainToken},
        verification::TokenFacts,
    },
    verify::{
        answer::look_up::Question,
        cache::last_use::LastUse,
        fake::{self, FakePrimary, LEASE, World, bit, facts, pepper, token},
        fence::buckets::KeyBucket,
    },
};

const LEASE_MICROS: i64 = LEASE.as_micros() as i64;

async fn outcome(world: &World, token: &PlainToken) -> Outcome {
    world.verifier.verify(token.reveal().as_bytes(), None).await.expect("up").outcome()
}

fn cached(world: &World, token: &PlainToken) -> Option<Outcome> {
    world.verifier.cached(token.reveal().as_bytes(), None).map(|answer| answer.outcome())
}

/// Verifies in a task of its own, so that a test can let things happen meanwhile.
fn verifying(world: &World, token: &PlainToken) -> tokio::task::JoinHandle<Result<Verification, VerifyError>> {
    let (verifier, bytes) = (world.verifier.clone(), token.reveal().as_bytes().to_vec());
    tokio::spawn(async move { verifier.verify(&bytes, None).await })
}

#[tokio::test]
async fn a_token_is_read_once_and_then_answered_from_memory() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(cached(&world, &token), None);
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    assert_eq!(cached(&world, &token), Some(Outcome::Valid));
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    assert_eq!(world.primary.fills(), 1);
    let answer = world.verifier.cached(token.reveal().as_bytes(), None).expect("cached");
    assert_eq!(answer.entry().expect("known").facts(), &facts(1));
    assert_eq!(answer.revision(), Revision { epoch: 1, number: 1 });
}

#[tokio::test]
async fn malformed_is_answered_without_a_look_up() {
    let world = World::new();
    assert_eq!(world.verifier.cached(b"lk_nonsense", None).map(|a| a.outcome()), Some(Outcome::Malformed));
    assert_eq!(world.primary.fills(), 0);
}

/// Its entry is prefetched before the checksum is checked: what arrives is no answer.
#[tokio::test]
async fn t1_a_typo_is_malformed_even_if_something_is_remembered_where_it_leads() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    let mut typo = token.reveal().as_bytes().to_vec();
    let last = typo.last_mut().expect("not empty");
    *last = if *last == b'0' { b'1' } else { b'0' };
    let digest = FormedToken::parse(&typo).expect("of a token's form").hash(&pepper(1));
    let entry = Entry::new(digest, facts(1), fake::no_catalogue(), fake::stamp(1));
    world.verifier.loader.cache.insert(&entry, LastUse::NEVER);
    assert!(world.verifier.loader.cache.tables().get(&digest, &mut LookupBuffer::default()).is_some());
    for requirement in
        [None, Some(&Requirement { account_id: AccountId::from_stored("acme"), permission: bit(0), team_ids: vec![] })]
    {
        let found = world.verifier.cached(&typo, requirement).expect("from memory");
        assert_eq!((found.outcome(), found.entry().is_none()), (Outcome::Malformed, true));
    }
    let questions =
        [token.reveal().as_bytes(), &typo].map(|token| Question { token, requirement: None::<&Requirement> });
    let mut outcomes = vec![];
    let memory = world.verifier.memory().expect("leased");
    memory.verify_many(&questions, |_, answer| outcomes.push(answer.expect("from memory").outcome()));
    assert_eq!(outcomes, [Outcome::Valid, Outcome::Malformed]);
    assert_eq!(world.primary.fills(), 1);
}

#[tokio::test]
async fn a_requirement_is_judged_at_each_answer() {
    let mut world = World::new();
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    for (permission, teams, expected) in [
        (0, &[][..], Outcome::Valid),
        (1, &["a"], Outcome::Valid),
        (1, &["z"], Outcome::PermissionDenied),
        (2, &["a"], Outcome::PermissionDenied),
    ] {
        let requirement = Requirement {
            account_id: AccountId::from_stored("acme"),
            permission: bit(permission),
            team_ids: teams.iter().map(|team| TeamId::from_stored(team)).collect(),
        };
        let answer = world.verifier.verify(token.reveal().as_bytes(), Some(&requirement)).await.expect("up");
        assert_eq!(answer.outcome(), expected);
    }
    assert_eq!(world.primary.fills(), 1);
}

#[tokio::test]
async fn v3_without_a_lease_the_time_is_the_databases_own() {
    let mut world = World::new();
    let expiring = TokenFacts { expire_time: Some(world.primary.now()), ..facts(1) };
    let token = world.primary.mint(1, expiring);
    world.primary.database().skew -= 1;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.round().await;
    world.clock.advance(LEASE_MICROS);
    assert_eq!(outcome(&world, &token).await, Outcome::Expired);
    // Its clock is set on while there is no lease: the estimate must not lag behind.
    let later = Timestamp::from_micros(world.primary.now().as_micros() + 2_000_000);
    let other = world.primary.mint(2, TokenFacts { expire_time: Some(later), ..facts(2) });
    world.primary.database().skew += 3_000_000;
    assert_eq!(outcome(&world, &other).await, Outcome::Expired);
}

#[tokio::test]
async fn v3_a_cached_token_ends_at_its_deadline() {
    let mut world = World::new();
    let end = Timestamp::from_micros(world.primary.now().as_micros() + 1_000);
    let token = world.primary.mint(1, TokenFacts { expire_time: Some(end), ..facts(1) });
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.clock.advance(999);
    assert_eq!(cached(&world, &token), Some(Outcome::Valid));
    world.clock.advance(1);
    assert_eq!(cached(&world, &token), Some(Outcome::Expired));
}

#[tokio::test]
async fn unknown_is_remembered_under_its_own_fence() {
    let mut world = World::started().await;
    let unknown = token(9);
    assert_eq!(outcome(&world, &unknown).await, Outcome::Unknown);
    assert_eq!(cached(&world, &unknown), Some(Outcome::Unknown));
    // An event of a kind that this build does not know may have put it on record.
    world.primary.change(|database| {
        database.tokens.insert(unknown.parsed().hash(&pepper(1)), facts(9));
        database.append(None, 9);
    });
    world.round().await;
    assert_eq!(cached(&world, &unknown), None);
    assert_eq!(outcome(&world, &unknown).await, Outcome::Valid);
    assert_eq!(cached(&world, &unknown), Some(Outcome::Valid));
}

#[tokio::test]
async fn a_flood_of_unknown_tokens_evicts_no_good_one() {
    let limits =
        VerifyLimits { cached_tokens_max: 64, unknown_tokens_max: 64, lease: LEASE, ..VerifyLimits::default() };
    let mut world = World::with(vec![pepper(1)], limits);
    let good = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &good).await, Outcome::Valid);
    for byte in 2..=255 {
        assert_eq!(outcome(&world, &token(byte)).await, Outcome::Unknown);
    }
    assert_eq!(cached(&world, &good), Some(Outcome::Valid));
}

#[tokio::test]
async fn a_flood_of_ended_tokens_evicts_no_good_one_and_each_is_read_once() {
    let limits =
        VerifyLimits { cached_tokens_max: 64, ended_tokens_max: 1_000, lease: LEASE, ..VerifyLimits::default() };
    let mut world = World::with(vec![pepper(2), pepper(1)], limits);
    let good: Vec<_> = (1..=64).map(|byte| world.primary.mint(byte, facts(u128::from(byte)))).collect();
    let past = Some(Timestamp::from_micros(1));
    let ended: Vec<_> = (65..=255)
        .map(|byte| {
            let facts = facts(u128::from(byte));
            let (facts, outcome) = match byte % 5 {
                0 => (TokenFacts { token_end_time: past, ..facts }, Outcome::Rotated),
                1 => (TokenFacts { state: ApiKeyState::Deleted, ..facts }, Outcome::Deleted),
                2 => (TokenFacts { state: ApiKeyState::Disabled, ..facts }, Outcome::Disabled),
                3 => (TokenFacts { expire_time: past, ..facts }, Outcome::Expired),
                _ => (TokenFacts { account_suspended: true, ..facts }, Outcome::AccountSuspended),
            };
            (world.primary.mint(byte, facts), outcome)
        })
        .collect();
    world.round().await;
    for token in &good {
        assert_eq!(outcome(&world, token).await, Outcome::Valid);
    }
    for _ in 0..3 {
        for (token, wanted) in &ended {
            assert_eq!(outcome(&world, token).await, *wanted);
        }
    }
    assert_eq!(world.primary.fills(), good.len() + ended.len());
    assert!(good.iter().all(|token| cached(&world, token) == Some(Outcome::Valid)), "none was evicted");
    // An ended token may come back, and is fenced like any other.
    let (token, _) = &ended.iter().find(|(_, outcome)| *outcome == Outcome::Disabled).expect("there are some");
    let digest = token.parsed().hash(&pepper(1));
    world.primary.change(|database| {
        let facts = database.tokens.get_mut(&digest).expect("on record");
        facts.state = ApiKeyState::Active;
        let id = facts.key_id.as_uuid().as_u128();
        database.append(Some(EventKind::ApiKeyEnabled), id);
    });
    world.round().await;
    assert_eq!(cached(&world, token), None);
    assert_eq!(outcome(&world, token).await, Outcome::Valid);
    assert_eq!(cached(&world, token), Some(Outcome::Valid));
}

#[tokio::test]
async fn what_ends_while_it_is_cached_takes_its_own_place() {
    let mut world = World::started().await;
    let token = world.primary.mint(1, facts(1));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.primary.disable(1);
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Disabled);
    assert_eq!((cached(&world, &token), world.verifier.cache().len()), (Some(Outcome::Disabled), 1));
    assert!(world.verifier.loader.ended.get(&token.parsed().hash(&pepper(1))).is_none());
    // Nothing is answered of it without a lease, as of any other.
    world.clock.advance(2 * LEASE_MICROS);
    assert_eq!(cached(&world, &token), None);
}

#[tokio::test]
async fn edits_of_a_key_of_a_thousand_teams_leave_nothing_behind() {
    const BYTES_MAX: usize = 16 << 20;
    let mut world = World::started().await;
    let token = world.primary.mint(1, facts(1));
    let digest = token.parsed().hash(&pepper(1));
    for edit in 0..3_000 {
        let team = |place| TeamId::from_stored(&format!("team-{place:04}-as-of-edit-{edit:07}"));
        let edited = TokenFacts { team_ids: (0..1_000).map(team).collect(), ..facts(1) };
        world.primary.change(|database| {
            database.tokens.insert(digest, edited);
            database.append(Some(EventKind::ApiKeyUpdated), 1);
        });
        world.round().await;
        assert_eq!(outcome(&world, &token).await, Outcome::Valid);
        let bytes = world.verifier.cache().shared_bytes();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes after {edit} edits");
    }
}

#[tokio::test]
async fn misses_are_bounded() {
    let limits = VerifyLimits { misses_in_flight_max: 4, lease: LEASE, ..VerifyLimits::default() };
    let mut world = World::with(vec![pepper(1)], limits);
    world.round().await;
    let held = world.primary.hold();
    let waiting: Vec<_> = (1..=3).map(|byte| verifying(&world, &token(byte))).collect();
    FakePrimary::settle().await;
    let turned_away = world.verifier.verify(token(4).reveal().as_bytes(), None).await;
    assert_eq!(turned_away.map(|a| a.outcome()), Err(VerifyError::Overloaded));
    held.add_permits(3);
    for answer in waiting {
        assert_eq!(answer.await.expect("no panic").map(|a| a.outcome()), Ok(Outcome::Unknown));
    }
}

#[tokio::test]
async fn a_collision_costs_caching_never_an_answer() {
    let mut world = World::new();
    let other = (2..u128::MAX)
        .find(|id| KeyBucket::of(crate::verify::fake::key(*id)) == KeyBucket::of(crate::verify::fake::key(1)))
        .expect("there are more ids than buckets");
    let token = world.primary.mint(1, facts(1));
    world.primary.mint(2, facts(other));
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    world.primary.disable(other);
    world.round().await;
    assert_eq!(cached(&world, &token), None);
    assert_eq!(outcome(&world, &token).await, Outcome::Valid);
    assert_eq!(cached(&world, &token), Some(Outcome::Valid));
}

#[tokio::test]
async fn t2_a_token_verifies_under_every_live_pepper() {
    let limits = VerifyLimits { lease: LEASE, ..VerifyLimits::default() };
    let mut world = World::with(vec![pepper(2), pepper(1)], limits);
    let old = world.primary.mint_under(1, facts(1), &pepper(1));
    let gone = world.primary.mint_under(3, facts(3), &pepper(3));
    world.round().await;
    assert_eq!(outcome(&world, &old).await, Outcome::Valid);
    assert_eq!(cached(&world, &old), Some(Outcome::Valid));
    assert_eq!(outcome(&world, &gone).await, Outcome::Unknown);
    assert_eq!(cached(&world, &gone), Some(Outcome::Unknown));
}

#[tokio::test]
async fn k9_a_valid_answer_marks_the_use_and_no_other_does() {
    let mut world = World::new();
    let used = world.primary.mint(1, facts(1));
    let unused = world.primary.mint(2, facts(2));
    world.primary.disable(2);
    world.round().await;
    assert_eq!(outcome(&world, &used).await, Outcome::Valid);
    assert_eq!(outcome(&world, &unused).await, Outcome::Disabled);
    world.clock.advance(1_000_000);
    assert_eq!(cached(&world, &used), Some(Outcome::Valid));
    let drained = world.verifier.drain_used();
    let digest = used.parsed().hash(&pepper(1));
    assert_eq!(drained, [Used { digest, key_id: facts(1).key_id, last_used: world.primary.now() }]);
    assert!(world.verifier.drain_used().is_empty());
}

#[tokio::test]
async fn k8_a_late_presentation_is_handed_over_once_an_hour() {
    let mut world = World::new();
    let end = Some(world.primary.now());
    let token = world.primary.mint(1, TokenFacts { token_end_time: end, ..facts(1) });
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Rotated);
    assert_eq!(world.verifier.drain_late().len(), 1);
    // Its event raises the key's fence, so the entry is read again; that must not report it again.
    world.primary.database().append(Some(EventKind::RotatedTokenPresented), 1);
    world.round().await;
    assert_eq!(outcome(&world, &token).await, Outcome::Rotated);
    assert!(world.verifier.drain_late().is_empty());
    world.clock.advance(3_600_000_000);
    assert_eq!(outcome(&world, &token).await, Outcome::Rotated);
    assert_eq!(world.verifier.drain_late().len(), 1);
}

#[tokio::test]
async fn a_revision_is_awaited_by_epoch_and_number() {
    let world = World::started().await;
    let wait = Duration::from_millis(1);
    let revision = |epoch, number| Revision { epoch, number };
    assert!(world.verifier.await_revision(revision(1, 0), wait).await.is_ok());
    assert!(world.verifier.await_revision(revision(0, 9), wait).await.is_ok());
    for later in [revision(1, 1), revision(2, 0)] {
        assert_eq!(world.verifier.await_revision(later, wait).await, Err(NotApplied { revision: later }));
    }
}

#[tokio::test]
async fn outcomes_and_answers_are_counted() {
    let world = World::started().await;
    let unknown = token(5);
    assert_eq!(outcome(&world, &unknown).await, Outcome::Unknown);
    assert_eq!(cached(&world, &unknown), Some(Outcome::Unknown));
    let counters = world.verifier.counters();
    assert_eq!(counters.misses.load(Ordering::Relaxed), 1);
    assert_eq!(counters.negative_hits(), 1);
    assert_eq!(counters.answers(Outcome::Unknown), 2);
}

#[path = "answer_rule.rs"]
mod answer_rule;
#[path = "stale.rs"]
mod stale;
