//! The cache: digest → what is on record, bounded. It decides nothing: what it returns is a candidate, and whether it
//! may be served is for the fences and the lease (V1).
//!
//! A look-up takes no lock, allocates nothing and hashes nothing: digests are uniform, and nobody without the pepper
//! can choose them, so their own bits say where they stand. What is found is copied out whole (`slot`).

use std::{
    borrow::Borrow,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{
    entry::Entry,
    fence::Buckets,
    interned::{Interned, NamedSet},
    slot::{Contents, LastUse, NEVER, Sought},
    table::Table,
    tables::{Current, InHand},
    usage::Presented,
};
use crate::domain::{
    id::{AccountId, KeyId, TeamId},
    revision::RevisionStamp,
    time::Timestamp,
    token::HashedToken,
    verification::{OwningTeams, Requirement, Standing, TokenFacts},
};

/// A table of its own for each of so many parts of the digests: so that growing one holds nobody up for long.
const TABLES_MAX: usize = 64;
/// A part is not worth a table below so many entries.
const TABLE_ENTRIES_MIN: usize = 1_024;
/// What is kept for sharing may be so many times the entries, and so many more, before the cache moves to fresh names.
/// An entry names six things at most: so what is still named is always well below that.
const NAMES_PER_ENTRY_MAX: usize = 8;
const NAMES_SPARE: usize = 65_536;

/// Tokens on record, by digest.
pub struct EntryCache {
    tables: Current,
    /// Each keeps its table's other writers out.
    writers: Box<[Mutex<Writer>]>,
    names: ArcSwap<Interned>,
    count: AtomicUsize,
    entries_max: usize,
}

/// What the one writer of a table keeps.
#[derive(Default)]
struct Writer {
    entries: usize,
    /// Where the last search for something to evict ended.
    hand: usize,
}

/// Room for what a look-up finds, to be used again for the next.
#[derive(Default)]
pub struct Room(Contents);

/// Where a token stands.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    place: usize,
    table: &'a Table,
}

/// A token as it was cached, at one moment.
#[derive(Clone, Copy)]
pub struct Cached<'a> {
    contents: &'a Contents,
    place: usize,
    table: &'a Table,
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

// === impl Spot ===

impl<'a> Spot<'a> {
    #[inline]
    pub fn find(table: &'a Table, sought: &Sought, room: &mut Room) -> Option<Self> {
        let place = table.find(sought, &mut room.0)?;
        Some(Self { place, table })
    }

    #[inline]
    pub fn cached(self, room: &'a Room) -> Cached<'a> {
        Cached { contents: &room.0, place: self.place, table: self.table }
    }
}

// === impl Room ===

impl Room {
    /// The fences that cover what was found, and the revision that it was read at.
    #[inline]
    pub(super) fn covered(&self) -> (Buckets, RevisionStamp) {
        (self.0.buckets(), self.0.revision())
    }
}

// === impl EntryCache ===

impl EntryCache {
    /// An empty cache of at most `entries_max`. It takes memory as it fills.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        let tables = (entries_max / TABLE_ENTRIES_MIN).clamp(1, TABLES_MAX).next_power_of_two();
        let names: Arc<Interned> = Arc::default();
        let table = |_| Table::new(tables.ilog2(), names.clone());
        Self {
            tables: Current::new((0..tables).map(table)),
            writers: (0..tables).map(|_| Mutex::default()).collect(),
            names: ArcSwap::new(names),
            count: AtomicUsize::new(0),
            entries_max,
        }
    }

    /// The tables as they are.
    #[inline]
    pub fn tables(&self) -> InHand {
        self.tables.in_hand()
    }

    /// True if the token was on record when last seen, without counting as a use.
    #[must_use]
    pub fn contains(&self, digest: &HashedToken) -> bool {
        self.tables().get(digest, &mut Room::default()).is_some()
    }

    /// Remembers an entry in place of what was known of its token. A new one counts as used at `last_use`.
    pub(super) fn insert(&self, entry: &Entry, last_use: LastUse) {
        let sought = Sought::new(entry.digest());
        let shard = self.tables().place_of(&sought);
        let mut writer = self.writers[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.renamed(shard);
        let mut older = Contents::default();
        if let Some(place) = table.find(&sought, &mut older) {
            if older.revision() <= entry.revision() {
                let names = table.interned.intern(entry.facts(), entry.catalogue());
                table.slot(place).replace(&Contents::of(entry, &names));
            }
            return;
        }
        if self.count.load(Ordering::Relaxed) >= self.entries_max {
            let Some(hand) = table.evict(writer.hand) else { return };
            writer.hand = hand;
            writer.entries -= 1;
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        let full = table.is_full_with(writer.entries + 1);
        let table = if full { self.tables.put(shard, table.grown()) } else { table };
        let names = table.interned.intern(entry.facts(), entry.catalogue());
        table.put(&Contents::of(entry, &names), last_use, NEVER);
        writer.entries += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// A shard's table, moved to fresh names if the cache has moved on.
    fn renamed(&self, shard: usize) -> Arc<Table> {
        let limit = self.len() * NAMES_PER_ENTRY_MAX + NAMES_SPARE;
        if self.names.load().count() > limit {
            self.names.store(Arc::default());
        }
        let (table, names) = (self.tables().table(shard).clone(), self.names.load_full());
        if Arc::ptr_eq(&table.interned, &names) { table } else { self.tables.put(shard, table.renamed(names)) }
    }

    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// True if it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Cached ===

impl<'a> Cached<'a> {
    /// The digest that is on record.
    #[must_use]
    pub fn digest(&self) -> HashedToken {
        self.contents.digest()
    }

    /// The revision that it was read at.
    #[must_use]
    pub fn revision(&self) -> RevisionStamp {
        self.contents.revision()
    }

    /// The fences that cover it.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.contents.buckets()
    }

    /// The key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.contents.key_id()
    }

    /// Its account.
    #[must_use]
    pub fn account_id(&self) -> &'a AccountId {
        self.table.interned.account(self.contents.names().account)
    }

    /// Whether the token is live, apart from what it holds.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.contents.standing()
    }

    /// What it holds account-wide.
    #[must_use]
    pub fn account_permissions(&self) -> &'a NamedSet {
        self.table.interned.set(self.contents.names().account_permissions)
    }

    /// What it holds on each of its teams.
    #[must_use]
    pub fn team_permissions(&self) -> &'a NamedSet {
        self.table.interned.set(self.contents.names().team_permissions)
    }

    /// The teams of its scope, sorted.
    pub fn team_ids(&self) -> impl Iterator<Item = &'a TeamId> + Clone + use<'a> {
        self.table.interned.teams(self.contents.names().teams)
    }

    /// When it was last used.
    pub(super) fn last_used(&self) -> Timestamp {
        self.table.slot(self.place).last_use().time()
    }

    /// Whether it holds what it must be good for.
    #[inline]
    pub(super) fn meets(&self, requirement: &Requirement<impl Borrow<str>, impl OwningTeams>) -> bool {
        let (account, team) = (self.account_permissions().permissions(), self.team_permissions().permissions());
        let in_scope = |team: &[u8]| self.table.interned.holds_team(self.contents.names().teams, team);
        requirement.met_by(self.account_id().as_str(), account, team, in_scope)
    }

    /// The same as an entry of its own.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        let Standing { state, account_suspended, expire_time, token_end_time } = self.standing();
        let facts = TokenFacts {
            key_id: self.key_id(),
            account_id: self.account_id().clone(),
            account_suspended,
            state,
            expire_time,
            token_end_time,
            account_permissions: *self.account_permissions().permissions(),
            team_permissions: *self.team_permissions().permissions(),
            team_ids: self.team_ids().cloned().collect(),
        };
        Entry::new(self.digest(), facts, self.account_permissions().catalogue().clone(), self.revision())
    }
}

impl Presented for Cached<'_> {
    fn digest(&self) -> HashedToken {
        self.contents.digest()
    }

    fn key_id(&self) -> KeyId {
        self.contents.key_id()
    }

    fn account_id(&self) -> AccountId {
        Self::account_id(self).clone()
    }

    #[inline]
    fn claim_use(&self, now: Timestamp, round: i64) -> bool {
        self.table.slot(self.place).claim_use(now, round)
    }

    fn claim_late_report(&self, now: Timestamp) -> bool {
        self.table.slot(self.place).claim_late_report(now)
    }

    fn drop_late_report(&self) {
        self.table.slot(self.place).drop_late_report();
    }
}

impl std::fmt::Debug for Cached<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
