//! The cache: digest → what is on record, bounded. It decides nothing: what it returns is a candidate, and whether it
//! may be served is for the fences and the lease (V1).
//!
//! A look-up takes no lock, allocates nothing and hashes nothing: digests are uniform, and cannot be chosen
//! without the pepper, so their own bits say where they stand. What is found is copied out whole (`slot`).

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    cached::{Cached, LookupBuffer},
    entry::Entry,
    last_use::{LastUse, NEVER},
    naming::Naming,
    slot::{Contents, DigestKey},
    table::Table,
    tables::{CurrentTables, TablesGuard},
};
use crate::domain::{time::Timestamp, token::HashedToken, verification::Outcome};

/// The digests are divided among at most this many tables, so that growing one delays no writer for long.
const TABLES_MAX: usize = 64;
/// A table is not worth having for fewer entries than this.
const TABLE_ENTRIES_MIN: usize = 1_024;

/// With each entry that is written, at least this many others are moved to fresh names while the cache moves.
const MOVED_AT_ONCE: usize = 4_096;

/// Tokens on record, by digest.
pub struct EntryCache {
    tables: CurrentTables,
    /// Each keeps its table's other writers out.
    writers: Box<[Mutex<ShardWriter>]>,
    naming: Naming,
    /// The next table to check, of those that may have to move to fresh names.
    next_to_move: AtomicUsize,
    count: AtomicUsize,
    entries_max: usize,
    evicted_for_bytes: AtomicU64,
    evicted_for_room: AtomicU64,
}

/// What the one writer of a table keeps.
#[derive(Default)]
struct ShardWriter {
    entries: usize,
    /// Where the last search for something to evict ended.
    hand: usize,
}

/// For tables keyed by digest.
pub type BuildDigestHasher = BuildHasherDefault<DigestHasher>;

/// Takes a digest's own bytes for its hash.
#[derive(Default)]
pub struct DigestHasher(u64);

// === impl DigestHasher ===

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bytes: u64) {
        self.0 = bytes;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Digests write one u64; whatever else is hashed still ends up somewhere.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

// === impl EntryCache ===

impl EntryCache {
    /// Creates an empty cache of at most `entries_max`, which share no more than about `shared_bytes_max`. It takes
    /// memory as it fills.
    #[must_use]
    pub fn new(entries_max: usize, shared_bytes_max: usize) -> Self {
        let tables = (entries_max / TABLE_ENTRIES_MIN).clamp(1, TABLES_MAX).next_power_of_two();
        let naming = Naming::new(tables, shared_bytes_max);
        let names = naming.names(0);
        let table = |_| Table::new(tables.ilog2(), names.clone());
        Self {
            tables: CurrentTables::new((0..tables).map(table)),
            writers: (0..tables).map(|_| Mutex::default()).collect(),
            naming,
            next_to_move: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            entries_max,
            evicted_for_bytes: AtomicU64::new(0),
            evicted_for_room: AtomicU64::new(0),
        }
    }

    /// Returns the tables as they are.
    #[inline]
    pub fn tables(&self) -> TablesGuard {
        self.tables.guard()
    }

    /// Reports whether the token was good when last seen, as far as is known at a moment, without counting as a use.
    #[must_use]
    pub fn knows_as_good(&self, digest: &HashedToken, now: Timestamp) -> bool {
        let is_good = |cached: Cached<'_>| cached.standing().outcome(now, || true) == Outcome::Valid;
        self.tables().get(digest, &mut LookupBuffer::default()).is_some_and(is_good)
    }

    /// Remembers an entry in place of what was known of its token, unless that is newer; reports whether anything was
    /// known.
    pub(crate) fn replace(&self, entry: &Entry) -> bool {
        let key = DigestKey::new(entry.digest());
        let shard = self.tables().place_of(&key);
        let _writer = self.writers[shard].lock().unwrap_or_else(PoisonError::into_inner);
        Self::replace_in(self.tables().table(shard), entry)
    }

    /// Replaces a token's entry in a table whose writer the caller is.
    fn replace_in(table: &Table, entry: &Entry) -> bool {
        let mut older = Contents::default();
        let Some(place) = table.find(&DigestKey::new(entry.digest()), &mut older) else { return false };
        if older.revision() <= entry.revision() {
            let names = table.interned.intern(entry.facts(), entry.catalogue());
            table.slot(place).replace(&Contents::of(entry, &names));
        }
        true
    }

    /// Remembers an entry in place of what was known of its token. A new one counts as used at `last_use`.
    pub(crate) fn insert(&self, entry: &Entry, last_use: LastUse) {
        let key = DigestKey::new(entry.digest());
        let shard = self.tables().place_of(&key);
        let mut writer = self.writers[shard].lock().unwrap_or_else(PoisonError::into_inner);
        self.put(shard, &mut writer, entry, last_use);
        drop(writer);
        self.move_others();
    }

    fn put(&self, shard: usize, writer: &mut ShardWriter, entry: &Entry, last_use: LastUse) {
        let table = self.renamed(shard, writer);
        if Self::replace_in(&table, entry) {
            return;
        }
        if self.count.load(Ordering::Relaxed) >= self.entries_max {
            let Some(hand) = table.evict(writer.hand) else { return };
            writer.hand = hand;
            writer.entries -= 1;
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.evicted_for_room.fetch_add(1, Ordering::Relaxed);
        }
        let full = table.is_full_with(writer.entries + 1);
        let table = if full { self.tables.put(shard, table.grown()) } else { table };
        let names = table.interned.intern(entry.facts(), entry.catalogue());
        table.put(&Contents::of(entry, &names), last_use, NEVER);
        writer.entries += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a shard's table, having moved it to fresh names if the cache is moving.
    fn renamed(&self, shard: usize, writer: &mut ShardWriter) -> Arc<Table> {
        let (table, names) = (self.tables().table(shard).clone(), self.naming.names(self.len()));
        if Arc::ptr_eq(&table.interned, &names) {
            return table;
        }
        let (renamed, entries) = table.renamed(names, self.naming.allowance());
        let renamed = self.tables.put(shard, renamed);
        let evicted = writer.entries - entries;
        self.count.fetch_sub(evicted, Ordering::Relaxed);
        self.evicted_for_bytes.fetch_add(evicted as u64, Ordering::Relaxed);
        (writer.entries, writer.hand) = (entries, 0);
        self.naming.moved();
        renamed
    }

    /// Moves more tables with each that is written to: otherwise those that nothing is written to would keep the old
    /// names for good. Several if they are small, or one that is large, so that no writer is delayed for long.
    fn move_others(&self) {
        let (mut moved, mut looked_at) = (0, 0);
        while moved < MOVED_AT_ONCE && looked_at < self.writers.len() && self.naming.is_moving() {
            let shard = self.next_to_move.fetch_add(1, Ordering::Relaxed) % self.writers.len();
            // Its present writer moves it.
            if let Ok(mut writer) = self.writers[shard].try_lock() {
                self.renamed(shard, &mut writer);
                moved += writer.entries;
            }
            looked_at += 1;
        }
    }

    /// Returns how many bytes the shared parts of its entries take; while it moves, under the old and the fresh names.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        let tables = self.tables();
        let mut shared: Vec<_> = (0..self.writers.len()).map(|shard| &tables.table(shard).interned).collect();
        shared.sort_unstable_by_key(|interned| Arc::as_ptr(interned));
        shared.dedup_by(|a, b| Arc::ptr_eq(a, b));
        shared.into_iter().map(|interned| interned.bytes()).sum()
    }

    /// Returns how many entries were evicted because they shared too many bytes.
    #[must_use]
    pub fn evicted_for_bytes(&self) -> u64 {
        self.evicted_for_bytes.load(Ordering::Relaxed)
    }

    /// Returns how many entries were evicted because it was full.
    #[must_use]
    pub fn evicted_for_room(&self) -> u64 {
        self.evicted_for_room.load(Ordering::Relaxed)
    }

    /// Returns how many it holds.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "tests/entry_cache.rs"]
mod tests;
