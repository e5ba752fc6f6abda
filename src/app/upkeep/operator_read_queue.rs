//! Notes of operators' reads that wait to be written to the log (A3).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{
    id::{AccountId, KeyId},
    log::event::Principal,
};

/// Notes that wait to be written at most; more are dropped and counted.
const WAITING_MAX: usize = 1_000;
/// How long no second note of the same key and account is left. The hour is judged by the database, because other
/// replicas leave notes too.
const NOTED_SPAN: Duration = Duration::from_secs(60);
/// How many notes are remembered for that.
const NOTED_MAX: usize = 10_000;

/// The notes of a process.
#[derive(Default)]
pub(crate) struct OperatorReadQueue {
    notes: Mutex<Notes>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Notes {
    noted: HashMap<(KeyId, AccountId), Instant>,
    waiting: VecDeque<OperatorRead>,
}

/// A read to have in the log.
#[derive(Clone, Debug)]
pub(crate) struct OperatorRead {
    /// The key, and the user that it acted for by the reach of `system.operate`.
    pub reader: Principal,
    /// Whose log has it: for what is no single account's, that of account `system`.
    pub account: AccountId,
    /// The account that was read; empty for all.
    pub target: String,
    /// The use-case.
    pub call: &'static str,
}

// === impl OperatorReadQueue ===

impl OperatorReadQueue {
    pub fn leave(&self, read: OperatorRead, now: Instant) {
        let mut notes = self.notes();
        let of = (read.reader.key_id, read.account.clone());
        if notes.noted.get(&of).is_some_and(|noted| now.duration_since(*noted) < NOTED_SPAN) {
            return;
        }
        if notes.waiting.len() >= WAITING_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if notes.noted.len() >= NOTED_MAX {
            // Notes may then be left twice, which the database detects.
            notes.noted.clear();
        }
        notes.noted.insert(of, now);
        notes.waiting.push_back(read);
    }

    pub fn next(&self) -> Option<OperatorRead> {
        self.notes().waiting.pop_front()
    }

    /// Puts back a note that could not be written, before all others.
    pub fn put_back(&self, read: OperatorRead) {
        self.notes().waiting.push_front(read);
    }

    /// Returns how many notes found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn read(key: u128, account: &str) -> OperatorRead {
        let key_id = KeyId::from_uuid(Uuid::from_u128(key));
        let reader = Principal { key_id, account_id: AccountId::system(), user_id: None };
        let account = AccountId::from_stored(account);
        OperatorRead { reader, target: account.to_string(), account, call: "list_api_keys" }
    }

    #[test]
    fn a3_one_note_of_a_key_and_account_a_minute() {
        let (reads, start) = (OperatorReadQueue::default(), Instant::now());
        for (key, account) in [(1, "a"), (1, "a"), (1, "b"), (2, "a"), (1, "a")] {
            reads.leave(read(key, account), start);
        }
        let count = || std::iter::from_fn(|| reads.next()).count();
        assert_eq!(count(), 3);
        reads.leave(read(1, "a"), start + NOTED_SPAN / 2);
        assert_eq!(count(), 0);
        reads.leave(read(1, "a"), start + NOTED_SPAN);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a3_notes_are_bounded_and_what_finds_no_room_is_counted() {
        let (reads, now) = (OperatorReadQueue::default(), Instant::now());
        for n in 0..WAITING_MAX + 7 {
            reads.leave(read(1, &n.to_string()), now);
        }
        assert_eq!(reads.dropped(), 7);
        // What was dropped is not taken for noted.
        let first = reads.next().expect("many");
        reads.leave(read(1, &WAITING_MAX.to_string()), now);
        assert_eq!(reads.notes().waiting.len(), WAITING_MAX);
        // What was put back comes first.
        reads.put_back(first.clone());
        assert_eq!(reads.next().map(|read| read.account), Some(first.account));
        for n in 0..2 * NOTED_MAX {
            reads.leave(read(2, &n.to_string()), now);
            reads.next();
        }
        assert!(reads.notes().noted.len() <= NOTED_MAX);
    }
}
