//! A table of slots, and the index that says which of them to look at: an entry stands in the bucket that its digest
//! belongs to, or in the next one that had room.
//!
//! Readers take no lock. A writer, one at a time, may move entries meanwhile: then a reader may miss one that is
//! there, which costs a query, or read one that was replaced, which is for the fences to refuse (V1).

use std::{cmp::Reverse, sync::Arc};

use super::{
    index::{BUCKET, BucketHint, Index, OccupiedSlots},
    interned::Interned,
    last_use::LastUse,
    slot::{Contents, DigestKey, Slot},
};
use crate::ablation::{Mechanism, without};

/// A table that is fuller grows: more of its entries would stand in a later bucket than their own.
const FULL_PER_MILLE: usize = 640;
/// A table grows by a sixteenth, so that its slack never takes more than that.
const GROWTH_DIVISOR: usize = 16;
const BUCKETS_MIN: usize = 2;
/// Slots in a piece of memory: 64 KiB.
const PIECE: usize = 512;
/// The least recently used of this many tokens is evicted.
const VICTIMS: usize = 8;

/// A table, and what its entries name by number.
pub(crate) struct Table {
    index: Index,
    slots: Slots,
    /// How many of a hash's first bits are the same for all its entries: the table was chosen by them.
    shard_bits: u32,
    pub interned: Arc<Interned>,
}

/// Slots by their places, in pieces of one size, so that the next table that grows can use the memory that another
/// one freed: tables of every size would leave gaps of every size.
struct Slots {
    pieces: Box<[Box<[Slot]>]>,
    len: usize,
}

/// An entry that is being moved to another place.
struct MovedEntry {
    contents: Contents,
    last_use: LastUse,
    late_reported: i64,
}

// === impl Slots ===

impl Slots {
    fn empty(len: usize) -> Self {
        let piece = |from: usize| (from..len.min(from + PIECE)).map(|_| Slot::empty()).collect();
        Self { pieces: (0..len).step_by(PIECE).map(piece).collect(), len }
    }

    #[inline]
    fn at(&self, place: usize) -> &Slot {
        &self.pieces[place / PIECE][place % PIECE]
    }
}

// === impl Table ===

impl Table {
    pub fn new(shard_bits: u32, interned: Arc<Interned>) -> Self {
        Self::of(BUCKETS_MIN, shard_bits, interned)
    }

    fn of(buckets: usize, shard_bits: u32, interned: Arc<Interned>) -> Self {
        Self { index: Index::new(buckets), slots: Slots::empty(buckets * BUCKET), shard_bits, interned }
    }

    /// Returns the bucket that a hash belongs to: in the hashes' own order, so that a table that grows is copied from
    /// front to back.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << self.shard_bits) * self.index.buckets() as u128) >> 64) as usize
    }

    /// Reports whether this many entries are too many for it.
    pub fn is_full_with(&self, entries: usize) -> bool {
        entries * 1_000 > self.slots.len * FULL_PER_MILLE
    }

    /// Creates a larger table of the same entries.
    pub fn grown(&self) -> Self {
        let buckets = self.index.buckets();
        self.copied(buckets + (buckets / GROWTH_DIVISOR).max(1))
    }

    /// Creates a table of the same entries, which name what they share by another's numbers, and returns how many they
    /// are: what they share may take no more bytes there than `allowance`. Those with lists of teams come last, the
    /// latest used of them first, and are left out when there is no more room.
    pub fn renamed(&self, interned: Arc<Interned>, allowance: usize) -> (Self, usize) {
        let bytes_max = interned.bytes() + allowance;
        let other = Self::of(self.index.buckets(), self.shard_bits, interned);
        let (mut entries, mut listed) = (0, Vec::new());
        let mut take_along = |mut entry: MovedEntry| {
            if other.interned.bytes() < bytes_max {
                entry.contents.rename(&self.interned, &other.interned);
                other.put(&entry.contents, entry.last_use, entry.late_reported);
                entries += 1;
            }
        };
        for entry in self.all() {
            if entry.contents.names().teams.are_listed() { listed.push(entry) } else { take_along(entry) }
        }
        listed.sort_unstable_by_key(|entry| Reverse(entry.last_use));
        listed.into_iter().for_each(take_along);
        (other, entries)
    }

    fn copied(&self, buckets: usize) -> Self {
        let other = Self::of(buckets, self.shard_bits, self.interned.clone());
        self.all().for_each(|entry| other.put(&entry.contents, entry.last_use, entry.late_reported));
        other
    }

    /// Returns all entries. For the writer alone: nothing changes meanwhile.
    fn all(&self) -> impl Iterator<Item = MovedEntry> {
        (0..self.index.buckets()).flat_map(|bucket| self.entries(bucket))
    }

    /// Returns the slot that a search looks at in a bucket.
    #[inline]
    fn place_in(&self, bucket: usize, hint: BucketHint, spread: u64) -> usize {
        bucket * BUCKET + hint.place(spread)
    }

    /// Prefetches the slot that a search most likely ends at.
    #[inline]
    pub fn prefetch(&self, key: &DigestKey) {
        let bucket = self.home(key.hash());
        if without(Mechanism::Salts) {
            let place = self.index.taken(bucket).places_from(BucketHint::UNSALTED.place(key.spread())).next();
            return place.into_iter().for_each(|place| self.slot(bucket * BUCKET + place).prefetch());
        }
        self.slot(self.place_in(bucket, self.index.hint(bucket), key.spread())).prefetch();
    }

    /// Returns the place of a digest's slot, whose contents are then in `contents`.
    #[inline]
    pub fn find(&self, key: &DigestKey, contents: &mut Contents) -> Option<usize> {
        if without(Mechanism::Salts) {
            return self.find_by_probing(key, contents);
        }
        for bucket in self.index.round_from(self.home(key.hash())) {
            let hint = self.index.hint(bucket);
            let place = self.place_in(bucket, hint, key.spread());
            if self.slot(place).read(contents) && contents.is_of(key) {
                return Some(place);
            }
            if !hint.goes_on() {
                return None;
            }
        }
        None
    }

    /// Does what [`Self::find`] does without salts, for the ablation benchmark.
    fn find_by_probing(&self, key: &DigestKey, contents: &mut Contents) -> Option<usize> {
        let first = BucketHint::UNSALTED.place(key.spread());
        for bucket in self.index.round_from(self.home(key.hash())) {
            for place in self.index.taken(bucket).places_from(first) {
                let place = bucket * BUCKET + place;
                if self.slot(place).read(contents) && contents.is_of(key) {
                    return Some(place);
                }
            }
            if !self.index.hint(bucket).goes_on() {
                return None;
            }
        }
        None
    }

    #[inline]
    pub fn slot(&self, place: usize) -> &Slot {
        self.slots.at(place)
    }

    /// Adds a token that is not in it. For the writer alone, which has made sure that there is room.
    pub fn put(&self, contents: &Contents, last_use: LastUse, late_reported: i64) {
        for bucket in self.index.round_from(self.home(contents.hash())) {
            if let Some(place) = self.make_room(bucket, contents.spread()) {
                self.slot(place).fill(contents, last_use, late_reported);
                self.index.set_taken(bucket, self.index.taken(bucket).with(place % BUCKET));
                return;
            }
            self.index.pass(bucket);
        }
        unreachable!("a table is never full");
    }

    /// Frees a place for one more entry, moving the others of the bucket if need be; `None` if it takes no more.
    fn make_room(&self, bucket: usize, spread: u64) -> Option<usize> {
        let (hint, taken) = (self.index.hint(bucket), self.index.taken(bucket));
        if taken.is_full() {
            return None;
        }
        if !taken.holds(hint.place(spread)) {
            return Some(self.place_in(bucket, hint, spread));
        }
        if without(Mechanism::Salts) {
            let free = taken.complement().places_from(hint.place(spread)).next()?;
            return Some(bucket * BUCKET + free);
        }
        let entries: Vec<_> = self.entries(bucket).collect();
        let spreads: Vec<_> = entries.iter().map(|entry| entry.contents.spread()).chain([spread]).collect();
        let parting = hint.that_parts(&spreads)?;
        self.index.set_hint(bucket, parting);
        let mut moved_to = OccupiedSlots::NONE;
        for entry in &entries {
            let place = parting.place(entry.contents.spread());
            self.slot(bucket * BUCKET + place).fill(&entry.contents, entry.last_use, entry.late_reported);
            moved_to = moved_to.with(place);
        }
        let left = taken.places().filter(|place| !moved_to.holds(*place));
        left.for_each(|place| self.slot(bucket * BUCKET + place).clear());
        self.index.set_taken(bucket, moved_to);
        Some(self.place_in(bucket, parting, spread))
    }

    /// Returns the entries of a bucket. For the writer alone: nothing changes meanwhile.
    fn entries(&self, bucket: usize) -> impl Iterator<Item = MovedEntry> {
        let slots = self.index.taken(bucket).places().map(move |place| self.slot(bucket * BUCKET + place));
        slots.filter_map(|slot| {
            let mut contents = Contents::default();
            let whole = slot.read(&mut contents);
            whole.then(|| MovedEntry { contents, last_use: slot.last_use(), late_reported: slot.late_reported() })
        })
    }

    /// Removes the least recently used of the next `VICTIMS` tokens from a place on. For the writer alone.
    /// Returns the place to go on from next time; `None` if there is nothing to remove.
    pub fn evict(&self, from: usize) -> Option<usize> {
        let len = self.slots.len;
        let places = (from..from + len).map(|place| place % len);
        let is_taken = |place: &usize| self.index.taken(place / BUCKET).holds(place % BUCKET);
        let (mut victim, mut last) = (None, from);
        for place in places.filter(is_taken).take(VICTIMS) {
            let used = self.slot(place).last_use();
            if victim.is_none_or(|(_, least)| used < least) {
                victim = Some((place, used));
            }
            last = place;
        }
        self.remove(victim?.0);
        Some((last + 1) % len)
    }

    /// Empties a slot.
    fn remove(&self, place: usize) {
        let (bucket, mut contents) = (place / BUCKET, Contents::default());
        if self.slot(place).read(&mut contents) {
            let passed = self.index.round_from(self.home(contents.hash())).take_while(|passed| *passed != bucket);
            passed.for_each(|passed| self.index.pass_no_more(passed));
        }
        self.slot(place).clear();
        self.index.set_taken(bucket, self.index.taken(bucket).without(place % BUCKET));
    }
}

#[cfg(test)]
#[path = "tests/table.rs"]
mod tests;
