use std::hash::BuildHasher;

use super::*;
use crate::{
    domain::{
        api_key::ApiKeyState,
        id::{AccountId, TeamId},
        log::revision::RevisionStamp,
        verification::{Requirement, TokenFacts},
    },
    verify::{fake, usage::Presented},
};

fn digest(number: u64) -> HashedToken {
    let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    HashedToken::from_bytes(std::array::from_fn(|i| spread[i % 8].wrapping_add(i as u8)))
}

fn entry(number: u64, revision: i64) -> Entry {
    Entry::new(digest(number), fake::facts(u128::from(number)), fake::no_catalogue(), fake::stamp(revision))
}

fn of(entries_max: usize) -> EntryCache {
    EntryCache::new(entries_max, 256 << 20)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn cached(cache: &EntryCache, number: u64) -> Option<RevisionStamp> {
    cache.tables().get(&digest(number), &mut LookupBuffer::default()).map(|cached| cached.revision())
}

#[test]
fn a_digest_is_its_own_hash() {
    assert_eq!(BuildDigestHasher::default().hash_one(HashedToken::from_bytes([3; 32])), u64::from_le_bytes([3; 8]));
}

#[test]
fn what_was_remembered_comes_back_whole() {
    let teams = |count: usize| (0..count).map(|i| TeamId::from_stored(&format!("team-{i}"))).collect();
    let cache = of(100);
    let facts = [
        fake::facts(1),
        TokenFacts { state: ApiKeyState::Disabled, account_suspended: true, ..fake::facts(2) },
        TokenFacts {
            state: ApiKeyState::Deleted,
            expire_time: Some(Timestamp::from_micros(-5)),
            token_end_time: Some(Timestamp::from_micros(7)),
            ..fake::facts(u128::MAX)
        },
        TokenFacts { team_ids: teams(0), ..fake::facts(4) },
        TokenFacts { team_ids: teams(3), ..fake::facts(5) },
        TokenFacts { team_ids: teams(300), ..fake::facts(6) },
    ];
    for (number, facts) in facts.iter().enumerate() {
        cache.insert(
            &Entry::new(digest(number as u64), facts.clone(), fake::no_catalogue(), fake::stamp(3)),
            LastUse::NEVER,
        );
    }
    for (number, facts) in facts.iter().enumerate() {
        let tables = cache.tables();
        let mut buffer = LookupBuffer::default();
        let found = tables.get(&digest(number as u64), &mut buffer).expect("remembered");
        let entry = found.to_entry();
        assert_eq!((entry.facts(), *entry.digest()), (facts, digest(number as u64)));
        assert_eq!((found.revision(), found.buckets()), (fake::stamp(3), entry.buckets()));
    }
}

#[test]
fn a_team_is_found_in_a_scope_of_any_length() {
    for count in [0, 1, 3, 4, 300] {
        let (cache, team) = (of(100), |i: usize| TeamId::from_stored(&format!("team-{i:03}")));
        let facts = TokenFacts { team_ids: (0..count).map(team).collect(), ..fake::facts(1) };
        cache.insert(&Entry::new(digest(1), facts, fake::no_catalogue(), fake::stamp(3)), LastUse::NEVER);
        let (tables, mut buffer) = (cache.tables(), LookupBuffer::default());
        let found = tables.get(&digest(1), &mut buffer).expect("remembered");
        let meets = |team_ids: Vec<TeamId>| {
            found.meets(&Requirement { account_id: AccountId::from_stored("acme"), permission: fake::bit(1), team_ids })
        };
        let others = ["team", "team-0000", "team-300", "a", "z"].map(TeamId::from_stored);
        assert!(!meets(vec![]) && !meets(others.to_vec()), "{count}");
        assert!((0..count).all(|i| meets(vec![others[0].clone(), team(i)])), "{count}");
    }
}

#[test]
fn an_older_fill_that_comes_late_does_not_replace_a_newer_one() {
    let cache = of(100);
    cache.insert(&entry(1, 5), LastUse::NEVER);
    cache.insert(&entry(1, 4), LastUse::NEVER);
    assert_eq!(cached(&cache, 1), Some(fake::stamp(5)));
    cache.insert(&entry(1, 6), LastUse::NEVER);
    assert_eq!((cached(&cache, 1), cache.len()), (Some(fake::stamp(6)), 1));
}

#[test]
fn it_grows_to_its_bound_and_loses_nothing_before() {
    let cache = of(20_000);
    (0..20_000).for_each(|number| cache.insert(&entry(number, 1), LastUse::NEVER));
    assert!((0..20_000).all(|number| cached(&cache, number).is_some()));
    (20_000..30_000).for_each(|number| cache.insert(&entry(number, 1), LastUse::NEVER));
    assert_eq!(cache.len(), 20_000);
    assert_eq!((0..30_000).filter(|number| cached(&cache, *number).is_some()).count(), 20_000);
}

#[test]
fn what_is_used_stays_longer_than_what_is_not() {
    let cache = of(1_000);
    (0..1_000).for_each(|number| cache.insert(&entry(number, 1), LastUse::NEVER));
    for round in 1..4 {
        (0..100).for_each(|number| {
            assert!(
                cache
                    .tables()
                    .get(&digest(number), &mut LookupBuffer::default())
                    .expect("used")
                    .claim_use(at(round), round)
            )
        });
        (0..300).for_each(|number| cache.insert(&entry(round as u64 * 1_000 + number, 1), LastUse::NEVER));
    }
    assert!((0..100).all(|number| cached(&cache, number).is_some()));
}

/// Bytes that are kept where a few entries share little: those that are named, and as much again and some.
const CHURN_BYTES_MAX: usize = 3 * (4 << 20);

#[test]
fn unused_names_are_forgotten() {
    let cache = of(10);
    let named = |number: u64| {
        let account_id = AccountId::from_stored(&format!("account-{number}"));
        Entry::new(digest(number), TokenFacts { account_id, ..fake::facts(1) }, fake::no_catalogue(), fake::stamp(1))
    };
    let catalogue = fake::no_catalogue();
    for number in 0..100_000 {
        let entry = named(number);
        cache.insert(
            &Entry::new(*entry.digest(), entry.facts().clone(), catalogue.clone(), fake::stamp(1)),
            LastUse::NEVER,
        );
        assert!(cache.shared_bytes() <= CHURN_BYTES_MAX);
        assert_eq!(
            cache.tables().get(&digest(number), &mut LookupBuffer::default()).expect("cached").account_id(),
            &named(number).facts().account_id
        );
    }
}

/// A scope of many teams, a different one for each edit of a key.
fn wide(key: u64, edit: i64) -> Entry {
    let team = |place| TeamId::from_stored(&format!("team-{:04}-of-key-{key}-since-{edit}", place));
    let facts = TokenFacts { team_ids: (0..1_000).map(team).collect(), ..fake::facts(u128::from(key)) };
    Entry::new(digest(key), facts, fake::no_catalogue(), fake::stamp(edit))
}

#[test]
fn a_key_that_is_edited_again_and_again_takes_no_more_memory_however_many_teams_it_has() {
    // Many tables, most of which nothing is ever written to.
    let cache = of(1_000_000);
    (1_000..3_000).for_each(|number| cache.insert(&entry(number, 1), LastUse::NEVER));
    let mut most = 0;
    for edit in 1..2_000 {
        cache.insert(&wide(1, edit), LastUse::NEVER);
        most = most.max(cache.shared_bytes());
    }
    assert!(most <= CHURN_BYTES_MAX, "{most} bytes");
    let (tables, mut buffer) = (cache.tables(), LookupBuffer::default());
    assert_eq!(tables.get(&digest(1), &mut buffer).expect("cached").to_entry().facts(), wide(1, 1_999).facts());
    assert!((1_000..3_000).all(|number| cached(&cache, number).is_some()) && cache.evicted_for_bytes() == 0);
}

#[test]
fn unused_catalogues_are_forgotten_with_their_sets() {
    let cache = of(1_000);
    let description = "d".repeat(1_000);
    for edit in 0..2_000 {
        let permission = |place: u16| crate::domain::permissions::catalogue::Permission {
            spec: crate::domain::permissions::catalogue::PermissionSpec {
                name: format!("p{place}"),
                description: description.clone(),
                team_scopable: true,
                implies: vec![],
                retired: false,
            },
            bit: fake::bit(place),
        };
        let revision = crate::domain::log::revision::Revision { epoch: 1, number: edit };
        let catalogue = Arc::new(crate::domain::permissions::catalogue::Catalogue::new(
            revision,
            (0..50).map(permission).collect(),
        ));
        cache.insert(&Entry::new(digest(1), fake::facts(1), catalogue, fake::stamp(edit)), LastUse::NEVER);
        let (tables, mut buffer) = (cache.tables(), LookupBuffer::default());
        let found = tables.get(&digest(1), &mut buffer).expect("cached");
        found.account_permissions().written(|_| vec![0; 10_000].into());
        assert!(cache.shared_bytes() <= CHURN_BYTES_MAX, "{} bytes", cache.shared_bytes());
    }
}

#[test]
fn what_is_still_used_is_bounded_too_and_long_lists_leave_first() {
    const BYTES_MAX: usize = 8 << 20;
    let cache = EntryCache::new(100_000, BYTES_MAX);
    (1_000..2_000).for_each(|number| cache.insert(&entry(number, 1), LastUse::NEVER));
    for number in 0..500 {
        cache.insert(&wide(number, 1), LastUse::NEVER);
        // The old names, and half of the bound that has moved over; and what was written meanwhile.
        assert!(cache.shared_bytes() <= 2 * BYTES_MAX, "{} bytes", cache.shared_bytes());
        assert!(cached(&cache, number).is_some(), "what was just read is kept");
    }
    assert!((1_000..2_000).all(|number| cached(&cache, number).is_some()), "the others stay");
    let kept = (0..500).filter(|number| cached(&cache, *number).is_some()).count();
    assert_eq!((cache.len(), cache.evicted_for_bytes()), (1_000 + kept, 500 - kept as u64));
}

#[test]
fn k8_a_late_token_is_reported_once_an_hour_even_if_its_entry_is_refreshed() {
    let cache = of(10);
    cache.insert(&entry(1, 1), LastUse::NEVER);
    assert!(cache.tables().get(&digest(1), &mut LookupBuffer::default()).expect("cached").claim_late_report(at(1)));
    cache.insert(&entry(1, 2), LastUse::NEVER);
    assert!(
        !cache.tables().get(&digest(1), &mut LookupBuffer::default()).expect("cached").claim_late_report(at(3_600))
    );
    assert!(cache.tables().get(&digest(1), &mut LookupBuffer::default()).expect("cached").claim_late_report(at(3_601)));
}

#[test]
fn readers_see_each_token_whole_while_the_cache_grows_replaces_and_evicts() {
    let cache = of(300);
    let facts_of = |number: u64, revision: i64| TokenFacts {
        expire_time: Some(Timestamp::from_micros(revision)),
        ..fake::facts(u128::from(number))
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for revision in 1..60 {
                for number in 0..400 {
                    let (facts, stamp) = (facts_of(number, revision), fake::stamp(revision));
                    cache.insert(&Entry::new(digest(number), facts, fake::no_catalogue(), stamp), LastUse::NEVER);
                }
            }
        });
        let mut seen = 0;
        while !writer.is_finished() || seen == 0 {
            for number in 0..400 {
                let Some(entry) =
                    cache.tables().get(&digest(number), &mut LookupBuffer::default()).map(|found| found.to_entry())
                else {
                    continue;
                };
                let revision = entry.revision().revision().number;
                assert_eq!(entry.facts(), &facts_of(number, revision));
                seen += 1;
            }
        }
    });
}
