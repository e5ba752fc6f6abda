//! Guards the tables of the cache, as they were at one moment, for as long as a look-up takes.
//!
//! A guard is `arc_swap`'s: it costs no reference count, and a table that was replaced goes with the last guard of it.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

use super::{
    cached::{Cached, LookupBuffer, SlotRef},
    slot::DigestKey,
    table::Table,
};
use crate::{
    ablation::{Mechanism, without},
    domain::token::HashedToken,
};

/// The tables as they were at one moment, one for each value of the digests' first bits.
pub struct Tables(Box<[Arc<Table>]>);

/// The tables as they are.
pub(crate) struct CurrentTables {
    tables: ArcSwap<Tables>,
    changing: Mutex<()>,
}

/// The tables of one moment, which are kept as long as the guard is held.
pub struct TablesGuard(Guard<Arc<Tables>>);

// === impl Tables ===

impl Tables {
    #[inline]
    fn of(&self, key: &DigestKey) -> &Table {
        &self.0[self.place_of(key)]
    }

    #[inline]
    pub(super) fn place_of(&self, key: &DigestKey) -> usize {
        key.hash().checked_shr(64 - self.0.len().ilog2()).unwrap_or(0) as usize
    }

    pub(crate) fn table(&self, place: usize) -> &Arc<Table> {
        &self.0[place]
    }

    /// Returns a candidate for an answer.
    #[must_use]
    pub fn get<'a>(&'a self, digest: &HashedToken, buffer: &'a mut LookupBuffer) -> Option<Cached<'a>> {
        let slot = self.find(digest, buffer)?;
        Some(slot.cached(buffer))
    }

    /// Returns the place of a candidate, whose contents are then in the buffer.
    #[inline]
    pub(crate) fn find(&self, digest: &HashedToken, buffer: &mut LookupBuffer) -> Option<SlotRef<'_>> {
        let key = DigestKey::new(digest);
        SlotRef::find(self.of(&key), &key, buffer)
    }

    /// Prefetches a digest's entry. Nothing of it is read yet.
    #[inline]
    pub fn prefetch(&self, digest: &HashedToken) {
        if without(Mechanism::Prefetch) {
            return;
        }
        let key = DigestKey::new(digest);
        self.of(&key).prefetch(&key);
    }

    fn with(&self, place: usize, table: &Arc<Table>) -> Self {
        let mut tables = self.0.clone();
        tables[place] = table.clone();
        Self(tables)
    }
}

// === impl CurrentTables ===

impl CurrentTables {
    pub fn new(tables: impl Iterator<Item = Table>) -> Self {
        Self { tables: ArcSwap::from_pointee(Tables(tables.map(Arc::new).collect())), changing: Mutex::default() }
    }

    #[inline]
    pub fn guard(&self) -> TablesGuard {
        TablesGuard(self.tables.load())
    }

    /// Puts a table in place of another.
    pub fn put(&self, place: usize, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = self.tables.load().with(place, &table);
        self.tables.store(Arc::new(tables));
        table
    }
}

// === impl TablesGuard ===

impl Deref for TablesGuard {
    type Target = Tables;

    #[inline]
    fn deref(&self) -> &Tables {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> CurrentTables {
        CurrentTables::new((0..2).map(|_| Table::new(1, Arc::default())))
    }

    fn tables(guard: &TablesGuard) -> usize {
        std::ptr::from_ref::<Tables>(guard).addr()
    }

    #[test]
    fn a_thread_looks_at_the_latest_tables_of_the_cache_that_it_asks() {
        let (one, other) = (current(), current());
        let first = tables(&one.guard());
        assert_eq!(tables(&one.guard()), first);
        assert_ne!(tables(&other.guard()), first);
        let table = one.put(1, Table::new(1, Arc::default()));
        assert!(Arc::ptr_eq(one.guard().table(1), &table));
    }

    #[test]
    fn what_is_held_stays_and_what_is_released_goes() {
        let current = current();
        let (held, second) = (current.guard(), current.guard());
        let old = Arc::downgrade(&held.0);
        current.put(0, Table::new(1, Arc::default()));
        drop(second);
        assert_eq!(held.table(0).interned.bytes(), 0);
        drop(held);
        assert!(old.upgrade().is_none());
    }
}
