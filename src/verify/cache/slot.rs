//! One cached token in 128 bytes: two cache lines, so that a look-up among millions costs one trip to memory.
//!
//! It knows how facts become words and nothing of where slots are. What many keys share (accounts, sets of
//! permissions, teams) stands in [`super::interned`], and here only by number.

use std::{
    slice,
    sync::atomic::{AtomicI64, Ordering},
};

use prefetch_index::prefetch_index;
use subtle::ConstantTimeEq;

use super::{
    entry::Entry,
    interned::{Interned, Names, TEAMS_INLINE, TeamNumbers},
    last_use::{LastUse, NEVER, claim_late_report},
};
use crate::{
    domain::{
        api_key::ApiKeyState, id::KeyId, log::revision::RevisionStamp, time::Timestamp, token::HashedToken,
        verification::Standing,
    },
    verify::fence::{buckets::Buckets, ordered::Versioned},
};

/// In place of a deadline: there is none.
const NO_END: i64 = i64::MAX;
const WORDS: usize = 13;
const DIGEST_WORDS: usize = 4;
/// The words from here on are the numbers of what the entry shares with others.
const NAMES: usize = 10;
/// The word that distinguishes a bucket's entries. Not the one by which their bucket is found.
const SPREAD: usize = 1;

/// A place for one token.
#[repr(C, align(128))]
pub(crate) struct Slot {
    /// Database time in microseconds when a late presentation was last reported (K8). In the first line.
    late_reported: AtomicI64,
    facts: Versioned<WORDS>,
    /// When the token was last used, and the round in which that was queued (K9): see [`LastUse`]. In the second line.
    last_use: AtomicI64,
}

const _: () = assert!(size_of::<Slot>() == 128);

/// What a slot held when it was read: everything, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents([i64; WORDS]);

// === impl Contents ===

impl Contents {
    /// Returns the words of an entry; what it shares with others is in them by number.
    pub fn of(entry: &Entry, names: &Names) -> Self {
        let facts = entry.facts();
        let digest = words_of(entry.digest());
        let (key_high, key_low) = facts.key_id.as_uuid().as_u64_pair();
        let end = |end: Option<Timestamp>| end.map_or(NO_END, Timestamp::as_micros);
        let state = match facts.state {
            ApiKeyState::Active => 0,
            ApiKeyState::Disabled => 1,
            ApiKeyState::Deleted => 2,
        };
        let flags = state | u64::from(facts.account_suspended) << 2 | u64::from(names.teams.count()) << 8;
        let [owner, first_names, other_names] = words_of_names(names);
        Self([
            digest[0],
            digest[1],
            digest[2],
            digest[3],
            entry.revision().bits(),
            key_high as i64,
            key_low as i64,
            end(facts.expire_time),
            end(facts.token_end_time),
            (flags | u64::from(entry.buckets().bits()) << 32) as i64,
            owner,
            first_names,
            other_names,
        ])
    }

    /// Returns the whole digest.
    pub fn digest(&self) -> HashedToken {
        let mut bytes = [0; 32];
        for (part, word) in bytes.chunks_exact_mut(8).zip(&self.0) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        HashedToken::from_bytes(bytes)
    }

    /// Reports whether this is the token looked for: by its whole digest, in constant time (T2).
    #[inline]
    pub fn is_of(&self, key: &DigestKey) -> bool {
        let words = self.0.iter().zip(&key.digest);
        words.fold(0, |differing, (word, key)| differing | (word ^ key)).ct_eq(&0).into()
    }

    pub fn revision(&self) -> RevisionStamp {
        RevisionStamp::from_bits(self.0[4])
    }

    pub fn key_id(&self) -> KeyId {
        KeyId::from_uuid(uuid::Uuid::from_u64_pair(self.0[5] as u64, self.0[6] as u64))
    }

    pub fn standing(&self) -> Standing {
        let end = |word: i64| (word != NO_END).then(|| Timestamp::from_micros(word));
        let state = match self.0[9] & 3 {
            0 => ApiKeyState::Active,
            1 => ApiKeyState::Disabled,
            _ => ApiKeyState::Deleted,
        };
        Standing {
            state,
            account_suspended: self.0[9] >> 2 & 1 == 1,
            expire_time: end(self.0[7]),
            token_end_time: end(self.0[8]),
        }
    }

    pub fn buckets(&self) -> Buckets {
        Buckets::from_bits((self.0[9] as u64 >> 32) as u32)
    }

    pub fn names(&self) -> Names {
        let high = |word: usize| (self.0[word] as u64 >> 32) as u32;
        let low = |word: usize| self.0[word] as u32;
        let count = (self.0[9] >> 8) as u8;
        Names {
            account: high(10),
            account_permissions: low(10),
            team_permissions: high(11),
            teams: TeamNumbers::from_numbers(count, [low(11), high(12), low(12)]),
        }
    }

    /// Renames what is shared to the numbers of another interner.
    pub fn rename(&mut self, from: &Interned, to: &Interned) {
        let names = to.adopt(from, &self.names());
        self.0[NAMES..].copy_from_slice(&words_of_names(&names));
    }

    /// Returns the word by which its bucket in a table is found.
    pub fn hash(&self) -> u64 {
        self.0[0] as u64
    }

    /// Returns the word that distinguishes it from the others of its bucket.
    pub fn spread(&self) -> u64 {
        self.0[SPREAD] as u64
    }
}

/// A digest as it is looked up.
#[derive(Clone, Copy)]
pub(crate) struct DigestKey {
    digest: [i64; DIGEST_WORDS],
}

impl DigestKey {
    #[inline]
    pub fn new(digest: &HashedToken) -> Self {
        Self { digest: words_of(digest) }
    }

    /// Returns the word by which its bucket in a table is found.
    #[inline]
    pub fn hash(&self) -> u64 {
        self.digest[0] as u64
    }

    /// Returns the word that distinguishes it from the others of its bucket.
    #[inline]
    pub fn spread(&self) -> u64 {
        self.digest[SPREAD] as u64
    }
}

#[inline]
fn words_of(digest: &HashedToken) -> [i64; DIGEST_WORDS] {
    let bytes = digest.as_bytes();
    std::array::from_fn(|word| i64::from_le_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])))
}

/// Returns what [`Contents::names`] reads back.
fn words_of_names(names: &Names) -> [i64; WORDS - NAMES] {
    let pair = |high: u32, low: u32| (u64::from(high) << 32 | u64::from(low)) as i64;
    let teams: [u32; TEAMS_INLINE] = names.teams.numbers();
    [pair(names.account, names.account_permissions), pair(names.team_permissions, teams[0]), pair(teams[1], teams[2])]
}

// === impl Slot ===

impl Slot {
    pub fn empty() -> Self {
        Self { late_reported: AtomicI64::new(NEVER), facts: Versioned::zeroed(), last_use: LastUse::word() }
    }

    /// Prefetches both cache lines, reading neither.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_index(slice::from_ref(&self.late_reported), 0);
        prefetch_index(slice::from_ref(&self.last_use), 0);
    }

    #[inline]
    pub fn read(&self, into: &mut Contents) -> bool {
        self.facts.read(&mut into.0)
    }

    /// Replaces the same token's earlier contents; its marks stay.
    pub fn replace(&self, contents: &Contents) {
        self.facts.write(contents.0);
    }

    /// Fills the slot with a token that was not here before.
    pub fn fill(&self, contents: &Contents, last_use: LastUse, late_reported: i64) {
        self.last_use.store(last_use.0, Ordering::Relaxed);
        self.late_reported.store(late_reported, Ordering::Relaxed);
        self.facts.write(contents.0);
    }

    pub fn clear(&self) {
        self.facts.write([0; WORDS]);
    }

    pub fn last_use(&self) -> LastUse {
        LastUse(self.last_use.load(Ordering::Relaxed))
    }

    pub fn late_reported(&self) -> i64 {
        self.late_reported.load(Ordering::Relaxed)
    }

    /// Notes a use; true if it is the token's first of a round (K9). Should the slot have changed hands meanwhile, the
    /// other token's uses may go unrecorded for the rest of the round: less than a minute.
    #[inline]
    pub fn claim_use(&self, now: Timestamp, round: i64) -> bool {
        LastUse::claim(&self.last_use, now, round)
    }

    /// Claims the one report an hour, in database time, of an ended token's presentation (K8); true for its winner.
    pub fn claim_late_report(&self, now: Timestamp) -> bool {
        claim_late_report(&self.late_reported, now)
    }

    /// Lets a later presentation report, because this one could not be queued.
    pub fn drop_late_report(&self) {
        self.late_reported.store(NEVER, Ordering::Relaxed);
    }
}
