//! By which numbers (names) the cache's entries refer to what they share, and when the cache moves to fresh ones.
//!
//! What entries share is only ever added to ([`super::interned`]), so what no entry names any more takes memory until
//! the cache moves: each table is copied under fresh names, and the old ones go with the last of them. That is due when
//! what is kept has more than doubled, in bytes, since the last move. What is *still* named has a bound too: a table
//! that would keep more than its share of it gives up entries, those with long lists of teams first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::interned::Interned;

/// Before the cache moves, what is kept may exceed twice what was kept after the last move by this much, and by this
/// much for each entry. A move costs in proportion to the entries, so what causes it has to cost that too.
const SPARE_BYTES: usize = 4 << 20;
const SPARE_BYTES_PER_ENTRY: usize = 64;

/// The names that the cache moves to, or has moved to.
pub(crate) struct Naming {
    state: Mutex<NamingState>,
    tables: usize,
    bytes_max: usize,
}

struct NamingState {
    names: Arc<Interned>,
    /// How many tables have not moved yet. Until all have, there is no other move: no more than two are kept at once.
    behind: usize,
    /// How many bytes were kept when all tables had moved.
    settled_bytes: usize,
}

impl Naming {
    /// Creates the first names for this many tables, which together keep at most `bytes_max`.
    pub fn new(tables: usize, bytes_max: usize) -> Self {
        let state = NamingState { names: Arc::default(), behind: 0, settled_bytes: 0 };
        Self { state: Mutex::new(state), tables, bytes_max }
    }

    /// Returns the names to use, and starts fresh ones if too much is kept for this many entries in the cache.
    pub fn names(&self, entries: usize) -> Arc<Interned> {
        let mut state = self.state();
        if state.behind == 0 && state.names.bytes() > self.limit(entries, state.settled_bytes) {
            state.names = Arc::default();
            state.behind = self.tables;
        }
        state.names.clone()
    }

    /// Reports whether some tables have yet to move.
    pub fn is_moving(&self) -> bool {
        self.state().behind > 0
    }

    /// Notes that a table has moved.
    pub fn moved(&self) {
        let mut state = self.state();
        state.behind -= 1;
        if state.behind == 0 {
            state.settled_bytes = state.names.bytes();
        }
    }

    /// Returns how many bytes one table may bring along: half of the bound for all of them, so that it is not reached
    /// again at once.
    pub fn allowance(&self) -> usize {
        self.bytes_max / 2 / self.tables
    }

    fn limit(&self, entries: usize, settled_bytes: usize) -> usize {
        (2 * settled_bytes + SPARE_BYTES + entries * SPARE_BYTES_PER_ENTRY).min(self.bytes_max)
    }

    fn state(&self) -> MutexGuard<'_, NamingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
