//! Marks that verifications leave for others to write: uses (K9) and late presentations (K8).
//!
//! Bounded queues that never block and never fail a verification: what does not fit is dropped, counted,
//! and marked again by a later request. Who drains them, and what is written where, is not known here.

use std::sync::{
    Arc, Mutex, PoisonError,
    mpsc::{Receiver, SyncSender, sync_channel},
};

use super::{counters::Counters, entry::Entry};
use crate::domain::{
    id::{AccountId, KeyId},
    time::Timestamp,
    token::HashedToken,
};

/// That a token answered VALID (K9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The token.
    pub digest: HashedToken,
    /// Its key.
    pub key_id: KeyId,
    /// When it last answered VALID.
    pub last_used: Timestamp,
}

/// That a token was presented after its end (K8). The log takes one a token and hour; a process that
/// has forgotten its last report may report again, so who records it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateToken {
    /// The token.
    pub digest: HashedToken,
    /// Its key.
    pub key_id: KeyId,
    /// The key's account.
    pub account_id: AccountId,
    /// When it was presented.
    pub time: Timestamp,
}

/// The two queues.
pub(super) struct Marks {
    used: Queue<Arc<Entry>>,
    late: Queue<LateToken>,
}

impl Marks {
    pub fn new(used_max: usize, late_max: usize) -> Self {
        Self { used: Queue::new(used_max), late: Queue::new(late_max) }
    }

    /// Marks a VALID answer.
    pub fn used(&self, entry: &Arc<Entry>, now: Timestamp, counters: &Counters) {
        if entry.mark_used(now) && !self.used.push(entry.clone()) {
            entry.drop_mark();
            Counters::bump(&counters.usage_drops);
        }
    }

    /// Marks a ROTATED answer.
    pub fn late(&self, entry: &Arc<Entry>, now: Timestamp, counters: &Counters) {
        if !entry.claim_late_report(now) {
            return;
        }
        let (digest, facts) = (*entry.digest(), entry.facts());
        let late = LateToken { digest, key_id: facts.key_id, account_id: facts.account_id.clone(), time: now };
        if !self.late.push(late) {
            entry.drop_late_report();
            Counters::bump(&counters.late_drops);
        }
    }

    /// Takes all marks of use, one a token, sorted by digest so that batches lock rows in one order.
    pub fn drain_used(&self) -> Vec<Used> {
        let entries = self.used.drain();
        let mut used: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let last_used = entry.take_used()?;
                Some(Used { digest: *entry.digest(), key_id: entry.facts().key_id, last_used })
            })
            .collect();
        used.sort_unstable_by(|a, b| a.digest.as_bytes().cmp(b.digest.as_bytes()).then(b.last_used.cmp(&a.last_used)));
        used.dedup_by(|later, first| later.digest == first.digest);
        used
    }

    /// Takes all late presentations.
    pub fn drain_late(&self) -> Vec<LateToken> {
        self.late.drain()
    }
}

/// A bounded queue of preallocated slots: pushing neither blocks nor allocates.
struct Queue<T> {
    sender: SyncSender<T>,
    receiver: Mutex<Receiver<T>>,
}

impl<T> Queue<T> {
    fn new(max: usize) -> Self {
        // A channel of 0 slots would hand over from thread to thread only.
        let (sender, receiver) = sync_channel(max.max(1));
        Self { sender, receiver: Mutex::new(receiver) }
    }

    fn push(&self, item: T) -> bool {
        self.sender.try_send(item).is_ok()
    }

    fn drain(&self) -> Vec<T> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.try_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::verify::fake;

    fn entry(byte: u8) -> Arc<Entry> {
        Arc::new(Entry::new(HashedToken::from_bytes([byte; 32]), fake::facts(1), fake::no_catalogue(), fake::stamp(1)))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    #[test]
    fn k9_usage_never_blocks() {
        let (marks, counters) = (Marks::new(1, 1), Counters::default());
        let (a, b) = (entry(1), entry(2));
        marks.used(&a, at(1), &counters);
        marks.used(&b, at(1), &counters);
        assert_eq!(counters.usage_drops.load(Ordering::Relaxed), 1);
        assert_eq!(marks.drain_used().len(), 1);
        // What was dropped is marked by a later use.
        marks.used(&b, at(1), &counters);
        assert_eq!(marks.drain_used()[0].digest, *b.digest());
    }

    #[test]
    fn k9_uses_are_drained_one_a_token_sorted_by_digest() {
        let (marks, counters) = (Marks::new(9, 1), Counters::default());
        // Two entries of one token: the first was refused by a fence and read again.
        for (byte, time) in [(7, 5), (3, 1), (7, 9)] {
            marks.used(&entry(byte), at(time), &counters);
        }
        let drained: Vec<_> = marks.drain_used().iter().map(|u| (u.digest.as_bytes()[0], u.last_used)).collect();
        assert_eq!(drained, [(3, at(1)), (7, at(9))]);
        assert!(marks.drain_used().is_empty());
    }

    #[test]
    fn k8_a_late_token_that_does_not_fit_is_reported_by_a_later_presentation() {
        let (marks, counters) = (Marks::new(1, 1), Counters::default());
        let (a, b) = (entry(1), entry(2));
        marks.late(&a, at(1), &counters);
        marks.late(&a, at(2), &counters);
        marks.late(&b, at(2), &counters);
        assert_eq!(counters.late_drops.load(Ordering::Relaxed), 1);
        assert_eq!(marks.drain_late().iter().map(|l| l.time).collect::<Vec<_>>(), [at(1)]);
        marks.late(&b, at(3), &counters);
        assert_eq!(marks.drain_late().len(), 1);
    }
}
