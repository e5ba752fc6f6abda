use super::*;
use crate::{
    domain::{log::revision::RevisionStamp, time::Timestamp, token::HashedToken},
    verify::{
        cache::{entry::Entry, last_use::NEVER},
        fake,
    },
};

/// A digest that belongs at a place between the first (0) and the last (255) of a table.
fn digest(place: u8, number: u8) -> HashedToken {
    let mut bytes = [number; 32];
    bytes[7] = place;
    bytes[8] = number.max(1);
    HashedToken::from_bytes(bytes)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn contents(table: &Table, digest: HashedToken, revision: i64) -> Contents {
    let entry = Entry::new(digest, fake::facts(1), fake::no_catalogue(), fake::stamp(revision));
    Contents::of(&entry, &table.interned.intern(entry.facts(), entry.catalogue()))
}

fn table_of(digests: &[HashedToken]) -> Table {
    let table = Table::new(0, Arc::default());
    for (second, digest) in digests.iter().enumerate() {
        table.put(&contents(&table, *digest, 1), LastUse::before(at(second as i64), 0), NEVER);
    }
    table
}

fn place_of(table: &Table, digest: HashedToken) -> usize {
    table.find(&DigestKey::new(&digest), &mut Contents::default()).expect("it is there")
}

fn finds(table: &Table, digest: HashedToken) -> Option<RevisionStamp> {
    let mut found = Contents::default();
    table.find(&DigestKey::new(&digest), &mut found).map(|_| found.revision())
}

/// Of the two buckets that a new table has, the second gets more than it takes.
fn crowded() -> Vec<HashedToken> {
    (1..=16).map(|number| digest(255, number)).chain((17..=19).map(|number| digest(0, number))).collect()
}

#[test]
fn what_is_put_is_found_wherever_it_had_to_stand() {
    let digests = crowded();
    let table = table_of(&digests);
    assert!(digests.iter().any(|digest| digest.as_bytes()[7] == 255 && place_of(&table, *digest) < BUCKET));
    assert!(digests.iter().all(|digest| finds(&table, *digest) == Some(fake::stamp(1))));
    assert_eq!(finds(&table, digest(255, 20)), None);
    assert_eq!(finds(&table, digest(0, 20)), None);
}

#[test]
fn what_is_left_is_found_after_any_of_them_went() {
    let digests = crowded();
    for gone in &digests {
        let table = table_of(&digests);
        table.remove(place_of(&table, *gone));
        for digest in &digests {
            assert_eq!(finds(&table, *digest).is_some(), digest != gone);
        }
        table.put(&contents(&table, *gone, 2), LastUse::NEVER, NEVER);
        assert_eq!(finds(&table, *gone), Some(fake::stamp(2)));
    }
}

#[test]
fn a_search_goes_no_further_when_what_went_on_is_gone() {
    let digests = crowded();
    let table = table_of(&digests);
    assert!(table.index.hint(1).goes_on());
    let went_on: Vec<_> = digests[..16].iter().filter(|digest| place_of(&table, **digest) < BUCKET).collect();
    went_on.iter().for_each(|digest| table.remove(place_of(&table, **digest)));
    assert!(!went_on.is_empty() && !table.index.hint(1).goes_on());
}

#[test]
fn marks_move_with_an_entry_that_makes_room() {
    let table = Table::new(0, Arc::default());
    let digests: Vec<_> = (1..=13).map(|number| digest(0, number)).collect();
    for (second, digest) in digests.iter().enumerate() {
        table.put(&contents(&table, *digest, 1), LastUse::before(at(second as i64), 0), second as i64);
    }
    for (second, digest) in digests.iter().enumerate() {
        let slot = table.slot(place_of(&table, *digest));
        assert_eq!((slot.last_use().time(), slot.late_reported()), (at(second as i64), second as i64));
    }
}

#[test]
fn of_some_that_stand_together_the_one_used_least_lately_goes() {
    let digests: Vec<_> = (1..=5).map(|number| digest(8 * number, number)).collect();
    let table = table_of(&digests);
    for used in [0, 2] {
        table.slot(place_of(&table, digests[used])).claim_use(at(99), 1);
    }
    assert!(table.evict(0).is_some());
    let left: Vec<_> = digests.iter().map(|digest| finds(&table, *digest).is_some()).collect();
    assert_eq!(left, [true, false, true, true, true]);
    (0..4).for_each(|_| assert!(table.evict(0).is_some()));
    assert_eq!(table.evict(0), None, "there is nothing left");
}

#[test]
fn growing_and_renaming_keep_what_there_is() {
    let digests: Vec<_> = (1..=20_u8).map(|number| digest(number.wrapping_mul(40), number)).collect();
    let table = table_of(&digests);
    let names: Arc<Interned> = Arc::default();
    let renamed = |table: &Table| table.renamed(names.clone(), usize::MAX / 2).0;
    for other in [table.grown(), renamed(&table), renamed(&table.grown())] {
        for digest in &digests {
            let mut found = Contents::default();
            let place = other.find(&DigestKey::new(digest), &mut found).expect("it is there");
            assert_eq!(found.digest(), *digest);
            assert_eq!(other.interned.account(found.names().account).as_str(), "acme");
            assert_eq!(other.slot(place).last_use().time(), at(i64::from(digest.as_bytes()[0]) - 1));
        }
    }
    assert!(table.is_full_with(21) && !table.is_full_with(20) && !table.grown().is_full_with(21));
}
