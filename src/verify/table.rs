//! A table of slots, searched from a digest's home onward: open addressing, so that what is found is found where it
//! stands.
//!
//! Readers take no lock. A writer, one at a time, may move entries meanwhile: then a reader may miss one that is
//! there, which costs a query, or read one that was replaced, which is for the fences to refuse (V1).

use std::sync::Arc;

use super::{
    interned::Interned,
    slot::{Contents, LastUse, Slot, Sought},
};

/// Slots are looked at in groups of so many: their lines come from memory together.
const GROUP: usize = 4;
/// A table that is fuller grows: longer searches would cost more than memory.
const FULL_PER_MILLE: usize = 620;
/// By a sixteenth, so that the slack never takes more than that.
const GROWTH_DIVISOR: usize = 16;
const SLOTS_MIN: usize = 32;
/// Of so many tokens the one that was used least lately goes.
const VICTIMS: usize = 8;

/// A table, and what its entries name by number.
pub(super) struct Table {
    slots: Box<[Slot]>,
    /// So many of a hash's first bits are the same for all its entries: they chose the table.
    shard_bits: u32,
    pub interned: Arc<Interned>,
}

impl Table {
    pub fn new(shard_bits: u32, interned: Arc<Interned>) -> Self {
        Self::of(SLOTS_MIN, shard_bits, interned)
    }

    fn of(slots: usize, shard_bits: u32, interned: Arc<Interned>) -> Self {
        Self { slots: (0..slots).map(|_| Slot::empty()).collect(), shard_bits, interned }
    }

    /// Where the search for a hash begins: in the hashes' own order, so that a table that grows is copied from front
    /// to back.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << self.shard_bits) * self.slots.len() as u128) >> 64) as usize
    }

    /// True if so many entries are too many for it.
    pub fn is_full_with(&self, entries: usize) -> bool {
        entries * 1_000 > self.slots.len() * FULL_PER_MILLE
    }

    /// A larger table of the same entries.
    pub fn grown(&self) -> Self {
        let len = self.slots.len();
        self.copied(len + (len / GROWTH_DIVISOR).max(GROUP), self.interned.clone())
    }

    /// The same entries, naming what they share by the numbers of another.
    pub fn renamed(&self, interned: Arc<Interned>) -> Self {
        self.copied(self.slots.len(), interned)
    }

    fn copied(&self, slots: usize, interned: Arc<Interned>) -> Self {
        let other = Self::of(slots, self.shard_bits, interned);
        let mut contents = Contents::default();
        let same_names = Arc::ptr_eq(&self.interned, &other.interned);
        for slot in self.slots.iter().filter(|slot| slot.tag() != 0) {
            // The writer is here: nothing changes meanwhile.
            if !slot.read(&mut contents) {
                continue;
            }
            if !same_names {
                contents.rename(&self.interned, &other.interned);
            }
            other.put(&contents, slot.last_use(), slot.late_reported());
        }
        other
    }

    #[inline]
    fn wrapped(&self, place: usize) -> usize {
        if place < self.slots.len() { place } else { place - self.slots.len() }
    }

    /// Asks memory for what a search will look at first, and waits for nothing if the result is only kept.
    #[inline]
    pub fn touch(&self, sought: &Sought) -> i64 {
        let first = self.home(sought.hash());
        let (first, second) = (&self.slots[first], &self.slots[self.wrapped(first + 1)]);
        first.tag() ^ first.touch() ^ second.tag() ^ second.touch()
    }

    /// The place of a digest's slot, whose contents are then in `contents`.
    #[inline]
    pub fn find(&self, sought: &Sought, contents: &mut Contents) -> Option<usize> {
        let start = self.home(sought.hash());
        // The second lines of where it most likely is come along with the first ones: not after them.
        let ahead = (0..GROUP).fold(0, |all, i| all ^ self.slots[self.wrapped(start + i)].touch());
        std::hint::black_box(ahead);
        let mut offset = 0;
        while offset < self.slots.len() {
            let tags: [i64; GROUP] = std::array::from_fn(|i| self.slots[self.wrapped(start + offset + i)].tag());
            for (i, tag) in tags.into_iter().enumerate() {
                if tag == sought.tag() {
                    let place = self.wrapped(start + offset + i);
                    return (self.slots[place].read(contents) && contents.is_of(sought)).then_some(place);
                }
                if tag == 0 {
                    return None;
                }
            }
            offset += GROUP;
        }
        None
    }

    pub fn slot(&self, place: usize) -> &Slot {
        &self.slots[place]
    }

    /// Adds a token that is not in it. The writer's; there is room.
    pub fn put(&self, contents: &Contents, last_use: LastUse, late_reported: i64) {
        let start = self.home(contents.hash());
        let mut slots = (start..start + self.slots.len()).map(|place| &self.slots[self.wrapped(place)]);
        let slot = slots.find(|slot| slot.tag() == 0).expect("a table is never full");
        slot.fill(contents, last_use, late_reported);
    }

    /// Removes the token that was used least lately, of some that stand together from a place on. The writer's.
    /// Returns the place to go on from next time; `None` if there is nothing to remove.
    pub fn evict(&self, from: usize) -> Option<usize> {
        let len = self.slots.len();
        let places = (from..from + len).map(|place| place % len);
        let (mut victim, mut last) = (None, from);
        for place in places.filter(|place| self.slots[*place].tag() != 0).take(VICTIMS) {
            let used = self.slots[place].last_use();
            if victim.is_none_or(|(_, least)| used < least) {
                victim = Some((place, used));
            }
            last = place;
        }
        self.remove(victim?.0);
        Some((last + 1) % len)
    }

    /// Empties a slot, and moves those back that stand after it because it was taken.
    fn remove(&self, place: usize) {
        let len = self.slots.len();
        let (mut hole, mut contents) = (place, Contents::default());
        for step in 1..len {
            let candidate = (place + step) % len;
            let slot = &self.slots[candidate];
            if slot.tag() == 0 {
                break;
            }
            if !slot.read(&mut contents) {
                break;
            }
            // How far it stands from its home, and from the hole.
            let from_home = (candidate + len - self.home(contents.hash())) % len;
            let from_hole = (candidate + len - hole) % len;
            if from_home >= from_hole {
                // Put first, then taken away: a reader may see it twice, but never late.
                self.slots[hole].fill(&contents, slot.last_use(), slot.late_reported());
                hole = candidate;
            }
        }
        self.slots[hole].clear();
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
