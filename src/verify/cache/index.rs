//! Where in a table a digest stands: a hint of two bytes for each bucket of sixteen slots.
//!
//! A hint's salt gives every entry of its bucket a place of its own: it is chosen anew, and the entries move, when two
//! of them would have the same one. So a look-up knows the one slot that it wants from an eighth of a byte a slot,
//! which stays near the processor when the slots are far away in memory, and goes there once. Hints decide nothing:
//! only the slot itself says what stands in it.

use std::sync::atomic::{AtomicU16, Ordering};

/// The number of slots that share a hint.
pub(super) const BUCKET: usize = 16;
/// With more entries a bucket hardly has a salt for all: one salt in 1,300 separates thirteen, one in 6,900 fourteen.
const ENTRIES_MAX: u32 = 13;
const SALTS: u16 = 1 << SALT_BITS;
const SALT_BITS: u32 = 12;
/// A count that has reached this is no longer exact, and stays as it is.
const PASSED_MAX: u16 = (1 << (16 - SALT_BITS)) - 1;
/// 2^64 over the golden ratio, and a prime near to it: spread every bit of a word into the top ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_AGAIN: u64 = 0x9e37_79b1_85eb_ca87;

/// The hints of a table, and what its writer knows of the buckets. It has one writer at a time.
pub(crate) struct Index {
    hints: Box<[AtomicU16]>,
    /// A bit for each slot of a bucket, the writer's alone.
    taken: Box<[AtomicU16]>,
}

/// A bucket's salt, and how many entries found no room in it and went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketHint(u16);

/// Which slots of a bucket are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OccupiedSlots(u16);

// === impl BucketHint ===

impl BucketHint {
    /// The hint of a bucket that nothing was added to.
    pub const UNSALTED: Self = Self(0);

    fn new(salt: u16, passed: u16) -> Self {
        Self(passed << SALT_BITS | salt)
    }

    fn salt(self) -> u16 {
        self.0 & (SALTS - 1)
    }

    fn passed(self) -> u16 {
        self.0 >> SALT_BITS
    }

    /// Returns an entry's place in the bucket.
    #[inline]
    pub fn place(self, spread: u64) -> usize {
        let salted = spread ^ u64::from(self.salt()).wrapping_mul(SPREAD);
        (salted.wrapping_mul(SPREAD_AGAIN) >> (64 - BUCKET.ilog2())) as usize
    }

    /// Reports whether an entry that is not in the bucket may be in the next one.
    #[inline]
    pub fn goes_on(self) -> bool {
        self.passed() > 0
    }

    /// Returns the hint with a salt that gives each of these entries a place of its own, if there is one.
    pub fn that_parts(self, spreads: &[u64]) -> Option<Self> {
        let hints = (0..SALTS).map(|salt| Self::new(salt, self.passed()));
        hints.into_iter().find(|hint| {
            let mut seen = OccupiedSlots(0);
            spreads.iter().all(|spread| {
                let place = hint.place(*spread);
                let new = !seen.holds(place);
                seen = seen.with(place);
                new
            })
        })
    }
}

// === impl OccupiedSlots ===

impl OccupiedSlots {
    pub const NONE: Self = Self(0);

    pub fn holds(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    pub fn with(self, place: usize) -> Self {
        Self(self.0 | 1 << place)
    }

    pub fn without(self, place: usize) -> Self {
        Self(self.0 & !(1 << place))
    }

    /// Reports whether the bucket takes no more entries.
    pub fn is_full(self) -> bool {
        self.0.count_ones() >= ENTRIES_MAX
    }

    /// Returns the slots that are not among these.
    pub fn complement(self) -> Self {
        Self(!self.0)
    }

    /// Returns the places from `first` on, going round to those before it.
    #[inline]
    pub fn places_from(self, first: usize) -> impl Iterator<Item = usize> {
        let mut rest = self.0.rotate_right(first as u32);
        std::iter::from_fn(move || {
            let step = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (step < BUCKET).then_some((first + step) % BUCKET)
        })
    }

    pub fn places(self) -> impl Iterator<Item = usize> {
        (0..BUCKET).filter(move |place| self.holds(*place))
    }
}

// === impl Index ===

impl Index {
    /// Creates an index of empty buckets.
    pub fn new(buckets: usize) -> Self {
        let zeros = || (0..buckets).map(|_| AtomicU16::new(0)).collect();
        Self { hints: zeros(), taken: zeros() }
    }

    /// Returns how many buckets it has.
    #[inline]
    pub fn buckets(&self) -> usize {
        self.hints.len()
    }

    /// Returns every bucket once, from this one on, going round to those before it.
    #[inline]
    pub fn round_from(&self, bucket: usize) -> impl Iterator<Item = usize> + use<> {
        (bucket..self.buckets()).chain(0..bucket)
    }

    #[inline]
    pub fn hint(&self, bucket: usize) -> BucketHint {
        BucketHint(self.hints[bucket].load(Ordering::Relaxed))
    }

    /// Stores a bucket's hint. For the writer alone, as are all that follow.
    pub fn set_hint(&self, bucket: usize, hint: BucketHint) {
        self.hints[bucket].store(hint.0, Ordering::Relaxed);
    }

    pub fn taken(&self, bucket: usize) -> OccupiedSlots {
        OccupiedSlots(self.taken[bucket].load(Ordering::Relaxed))
    }

    pub fn set_taken(&self, bucket: usize, taken: OccupiedSlots) {
        self.taken[bucket].store(taken.0, Ordering::Relaxed);
    }

    /// Notes that an entry goes on to the next bucket.
    pub fn pass(&self, bucket: usize) {
        let hint = self.hint(bucket);
        self.set_hint(bucket, BucketHint::new(hint.salt(), PASSED_MAX.min(hint.passed() + 1)));
    }

    /// Notes that an entry that had gone on was removed.
    pub fn pass_no_more(&self, bucket: usize) {
        let hint = self.hint(bucket);
        if hint.passed() < PASSED_MAX {
            self.set_hint(bucket, BucketHint::new(hint.salt(), hint.passed() - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as digests have them.
    fn spreads(bucket: u64, count: u64) -> Vec<u64> {
        (1..=count).map(|n| (bucket * 100 + n).wrapping_mul(SPREAD).rotate_left(17).wrapping_mul(SPREAD)).collect()
    }

    #[test]
    fn a_bucket_that_is_not_full_has_a_salt_that_parts_its_entries() {
        for bucket in 0..300 {
            let spreads = spreads(bucket, 12);
            let hint = BucketHint(0).that_parts(&spreads).expect("one in 320 does");
            let places: std::collections::BTreeSet<_> = spreads.iter().map(|spread| hint.place(*spread)).collect();
            assert_eq!(places.len(), 12);
        }
    }

    #[test]
    fn no_salt_parts_what_is_alike_or_too_much() {
        assert_eq!(BucketHint(0).that_parts(&[7, 9, 7]), None);
        assert_eq!(BucketHint(0).that_parts(&spreads(0, 17)), None);
    }

    #[test]
    fn a_new_salt_leaves_the_count_of_those_that_went_on() {
        let index = Index::new(1);
        index.pass(0);
        index.pass(0);
        index.set_hint(0, index.hint(0).that_parts(&spreads(1, 12)).expect("there is one"));
        index.pass_no_more(0);
        assert!(index.hint(0).goes_on() && index.hint(0).salt() != 0);
        index.pass_no_more(0);
        assert!(!index.hint(0).goes_on());
    }

    #[test]
    fn a_count_that_was_lost_is_never_none() {
        let index = Index::new(1);
        (0..40).for_each(|_| index.pass(0));
        (0..40).for_each(|_| index.pass_no_more(0));
        assert!(index.hint(0).goes_on());
    }

    #[test]
    fn what_is_taken_is_told_place_by_place() {
        let taken = OccupiedSlots::NONE.with(0).with(15).with(3).without(15);
        assert_eq!(taken.places().collect::<Vec<_>>(), [0, 3]);
        assert!(!taken.is_full() && (0..13).fold(OccupiedSlots::NONE, OccupiedSlots::with).is_full());
    }

    #[test]
    fn buckets_go_round() {
        assert_eq!(Index::new(3).round_from(2).collect::<Vec<_>>(), [2, 0, 1]);
    }
}
