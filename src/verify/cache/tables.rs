//! Guards the tables of the cache, as they were at one moment, for as long as a look-up takes.
//!
//! Each thread caches the tables that it used last, so that a look-up need not change their reference count: that takes
//! two operations that the processor lets nothing overtake, and with them the time in which the next token could be
//! hashed while this one's entry is being fetched. A thread that goes idle releases them ([`release_tables`]), lest it
//! keep alive what the others have long replaced.

use std::{
    cell::Cell,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{
    cached::{Cached, LookupBuffer, SlotRef},
    slot::DigestKey,
    table::Table,
};
use crate::{
    ablation::{Mechanism, without},
    domain::token::HashedToken,
};

thread_local! {
    static CACHED_TABLES: Cell<Option<Arc<Tables>>> = const { Cell::new(None) };
}

/// The tables as they were at one moment, one for each value of the digests' first bits.
pub struct Tables(Box<[Arc<Table>]>);

/// The tables as they are.
pub(crate) struct CurrentTables {
    tables: ArcSwap<Tables>,
    /// The latest tables' address: a thread that caches others must fetch these.
    address: AtomicUsize,
    changing: Mutex<()>,
}

/// Tables that stay as long as they are held.
pub struct TablesGuard(Held);

enum Held {
    /// The thread caches them from its drop on.
    Cached(Option<Arc<Tables>>),
    #[cfg(feature = "ablation")]
    Uncached(arc_swap::Guard<Arc<Tables>>),
}

/// Releases the tables that this thread caches. For threads that go idle.
pub fn release_tables() {
    // A thread that is ending has none.
    let _ = CACHED_TABLES.try_with(Cell::take);
}

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

    /// Returns where a candidate stands, whose contents are then in the buffer.
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
        let tables = Arc::new(Tables(tables.map(Arc::new).collect()));
        Self { address: AtomicUsize::new(address(&tables)), tables: ArcSwap::new(tables), changing: Mutex::default() }
    }

    #[inline]
    pub fn guard(&self) -> TablesGuard {
        #[cfg(feature = "ablation")]
        if without(Mechanism::CachedTables) {
            return TablesGuard(Held::Uncached(self.tables.load()));
        }
        let cached = CACHED_TABLES.try_with(Cell::take).ok().flatten();
        // Cached tables are alive, so nothing else is at their address.
        let latest = |tables: &Arc<Tables>| address(tables) == self.address.load(Ordering::Acquire);
        TablesGuard(Held::Cached(cached.filter(latest).or_else(|| Some(self.fetch()))))
    }

    #[cold]
    fn fetch(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// Puts a table in place of another.
    pub fn put(&self, place: usize, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = Arc::new(self.tables.load().with(place, &table));
        let latest = address(&tables);
        self.tables.store(tables);
        self.address.store(latest, Ordering::Release);
        table
    }
}

fn address(tables: &Arc<Tables>) -> usize {
    Arc::as_ptr(tables).addr()
}

// === impl TablesGuard ===

impl Deref for TablesGuard {
    type Target = Tables;

    #[inline]
    fn deref(&self) -> &Tables {
        match &self.0 {
            Held::Cached(tables) => tables.as_deref().expect("it is held until it is dropped"),
            #[cfg(feature = "ablation")]
            Held::Uncached(tables) => tables,
        }
    }
}

impl Drop for TablesGuard {
    #[inline]
    fn drop(&mut self) {
        // In a thread that is ending, it is only dropped.
        match &mut self.0 {
            Held::Cached(tables) => {
                let _ = CACHED_TABLES.try_with(|cached| cached.set(tables.take()));
            }
            #[cfg(feature = "ablation")]
            Held::Uncached(_) => {}
        }
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
        assert_eq!(tables(&one.guard()), one.address.load(Ordering::Relaxed));
    }

    #[test]
    fn what_is_held_stays_and_what_is_let_go_of_goes() {
        let current = current();
        let (held, second) = (current.guard(), current.guard());
        let cached = match &held.0 {
            Held::Cached(cached) => cached.clone(),
            #[cfg(feature = "ablation")]
            Held::Uncached(_) => None,
        };
        let old = Arc::downgrade(&cached.expect("held"));
        current.put(0, Table::new(1, Arc::default()));
        drop(second);
        assert_eq!(held.table(0).interned.bytes(), 0);
        drop(held);
        assert!(old.upgrade().is_some(), "the thread caches it");
        release_tables();
        assert!(old.upgrade().is_none());
    }
}
