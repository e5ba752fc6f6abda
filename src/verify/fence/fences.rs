//! The fence: what makes *revoked* mean revoked in a process that caches (V1).
//!
//! *An entry may be served only if its revision is at or above every fence that covers it.* To
//! invalidate is an atomic maximum: there is nothing to find and delete, so nothing to forget, and a fill
//! that raced a revocation carries the older revision and is never served. Several keys share a bucket;
//! a collision costs a fill, never an answer.
//!
//! Revisions are compared as stamps, epoch first: what was read in an epoch that is over is below every
//! fence of the next one's start.
//!
//! Fences rise only from committed events. [`super::covers`] says which event raises which fence.

use super::{
    buckets::{ACCOUNT_BUCKETS, Buckets, KEY_BUCKETS},
    covers::Covers,
    ordered::FenceMark,
};
use crate::{
    domain::log::revision::RevisionStamp,
    verify::planted::{Bug, planted},
};

/// Every fence of the process. 160 KiB, whatever the number of keys.
pub struct Fences {
    keys: Box<[FenceMark; KEY_BUCKETS]>,
    accounts: Box<[FenceMark; ACCOUNT_BUCKETS]>,
    global: FenceMark,
    negative: FenceMark,
}

impl Default for Fences {
    fn default() -> Self {
        Self { keys: lowered(), accounts: lowered(), global: FenceMark::new(0), negative: FenceMark::new(0) }
    }
}

fn lowered<const N: usize>() -> Box<[FenceMark; N]> {
    let fences: Box<[FenceMark]> = (0..N).map(|_| FenceMark::new(0)).collect();
    fences.try_into().expect("N were collected")
}

impl Fences {
    /// Raises what an event covers to the event's revision.
    pub fn raise(&self, covers: &Covers, at: RevisionStamp) {
        for bucket in covers.keys() {
            self.keys[usize::from(bucket.0)].raise(at.bits());
        }
        for bucket in covers.accounts() {
            self.accounts[usize::from(bucket.0)].raise(at.bits());
        }
        if covers.everything() {
            self.raise_all(at);
        }
    }

    /// Raises the global and the negative fence: nothing read before `at` is served again.
    pub fn raise_all(&self, at: RevisionStamp) {
        self.global.raise(at.bits());
        self.negative.raise(at.bits());
    }

    /// Reports whether an entry read at `revision` may be served, provided that the lease is valid (V1).
    ///
    /// The loads are relaxed: the caller has loaded the lease and the applied revision before, with
    /// Acquire, and sees every fence that was raised before those.
    #[inline]
    #[must_use]
    pub fn serves(&self, buckets: Buckets, revision: RevisionStamp) -> bool {
        if planted(Bug::SkipFence) {
            return true;
        }
        let revision = revision.bits();
        revision >= self.keys[usize::from(buckets.key.0)].load_after_stamps()
            && revision >= self.accounts[usize::from(buckets.account.0)].load_after_stamps()
            && revision >= self.global.load_after_stamps()
    }

    /// Reports whether an absence read at `revision` may be served, provided that the lease is valid (V2).
    #[must_use]
    pub fn serves_absence(&self, revision: RevisionStamp) -> bool {
        revision.bits() >= self.negative.load_after_stamps()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::log::revision::Revision;
    use crate::{
        domain::id::{AccountId, KeyId},
        verify::fence::buckets::KeyBucket,
    };

    fn at(number: i64) -> RevisionStamp {
        Revision { epoch: 1, number }.stamp().expect("small")
    }

    fn key(id: u128) -> KeyId {
        KeyId::from_uuid(Uuid::from_u128(id))
    }

    fn buckets(id: u128, account: &str) -> Buckets {
        Buckets::of(key(id), &AccountId::from_stored(account))
    }

    #[test]
    fn v1_an_entry_is_served_only_at_or_above_every_fence_that_covers_it() {
        for covers in [Covers::key(key(1)), Covers::account(&AccountId::from_stored("acme")), Covers::all()] {
            let fences = Fences::default();
            assert!(fences.serves(buckets(1, "acme"), at(0)));
            fences.raise(&covers, at(7));
            assert!(!fences.serves(buckets(1, "acme"), at(6)));
            assert!(fences.serves(buckets(1, "acme"), at(7)));
        }
    }

    #[test]
    fn v1_a_fence_never_goes_down() {
        let fences = Fences::default();
        fences.raise(&Covers::key(key(1)), at(9));
        fences.raise(&Covers::key(key(1)), at(4));
        assert!(!fences.serves(buckets(1, "acme"), at(8)));
    }

    #[test]
    fn a_fence_leaves_other_keys_and_accounts_alone() {
        let fences = Fences::default();
        fences.raise(&Covers::key(key(1)), at(9));
        fences.raise(&Covers::account(&AccountId::from_stored("other")), at(9));
        assert!(fences.serves(buckets(2, "acme"), at(0)));
        assert!(fences.serves_absence(at(0)));
    }

    #[test]
    fn absence_falls_with_everything() {
        let fences = Fences::default();
        fences.raise(&Covers::all(), at(3));
        assert!(!fences.serves_absence(at(2)));
        assert!(fences.serves_absence(at(3)));
    }

    #[test]
    fn v2_what_was_read_in_an_epoch_that_is_over_is_below_the_next_ones_start() {
        let fences = Fences::default();
        fences.raise_all(Revision { epoch: 2, number: 3 }.stamp().expect("small"));
        assert!(!fences.serves(buckets(1, "acme"), at(9)) && !fences.serves_absence(at(9)));
    }

    #[test]
    fn ids_minted_one_after_the_other_spread_over_the_buckets() {
        let used: std::collections::HashSet<_> = (0..4_096).map(|i| KeyBucket::of(key(i << 64 | 7)).0).collect();
        assert!(used.len() > 3_500, "{}", used.len());
    }
}
