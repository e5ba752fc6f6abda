//! Marks that verifications leave for others to write: uses (K9) and late presentations (K8).
//!
//! Bounded queues that never block and never fail a verification: what does not fit is dropped, counted,
//! and marked again by a later request. Late presentations are bounded by the hour too, in all and by account: each
//! becomes an event. It does not know what drains the queues, nor where their contents are written.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use super::{cache::last_use::LATE_INTERVAL, counters::Counters, limits::VerifyLimits};
use crate::domain::{
    id::{AccountId, KeyId},
    time::Timestamp,
    token::HashedToken,
};

/// Used tokens that may wait to be written (K9).
pub const USED_MARKS_MAX: usize = 65_536;
/// Presentations of ended tokens that may wait to be recorded (K8).
pub const LATE_TOKENS_MAX: usize = 1_024;

/// Notes that a token answered VALID (K9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The token.
    pub digest: HashedToken,
    /// Its key.
    pub key_id: KeyId,
    /// When it last answered VALID.
    pub last_used: Timestamp,
}

/// Notes that a token was presented after its end (K8). The log takes one a token and hour; a process that
/// has forgotten its last report may report again, so the recorder checks.
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

/// A presented token, with the state that says which of its marks were queued already.
pub(crate) trait Presented {
    fn digest(&self) -> HashedToken;
    fn key_id(&self) -> KeyId;
    fn account_id(&self) -> AccountId;
    /// Notes a use; true for the first of a round: a hot token is not to be queued by every request.
    fn claim_use(&self, now: Timestamp, round: i64) -> bool;
    /// Claims the one report an hour, in database time, of an ended token's presentation; true for its winner.
    fn claim_late_report(&self, now: Timestamp) -> bool;
    /// Lets a later presentation report, because this one could not be queued.
    fn drop_late_report(&self);
}

/// The two queues.
pub(crate) struct Marks {
    used: MarkQueue<Used>,
    late: MarkQueue<LateToken>,
    late_hour: Mutex<LateHour>,
    /// How often uses were drained: each token is queued once a round.
    round: AtomicI64,
}

/// Counts the late presentations that were recorded in an hour of database time. They are bounded in all, and more
/// tightly for each account: a tenant can end any number of tokens, and each event is kept for years.
struct LateHour {
    began: Timestamp,
    recorded: u32,
    /// Never more accounts than presentations.
    by_account: HashMap<AccountId, u32>,
    max: u32,
    per_account_max: u32,
}

impl Marks {
    pub fn new(limits: &VerifyLimits) -> Self {
        let late_hour = LateHour {
            began: Timestamp::from_micros(i64::MIN),
            recorded: 0,
            by_account: HashMap::new(),
            max: limits.late_events_per_hour_max,
            per_account_max: limits.late_events_per_account_hour_max,
        };
        Self {
            used: MarkQueue::new(limits.used_marks_max),
            late: MarkQueue::new(limits.late_tokens_max),
            late_hour: Mutex::new(late_hour),
            round: AtomicI64::new(0),
        }
    }

    /// Marks a VALID answer.
    #[inline]
    pub fn used(&self, token: &impl Presented, now: Timestamp, counters: &Counters) {
        if token.claim_use(now, self.round.load(Ordering::Relaxed)) {
            self.queue_use(token, now, counters);
        }
    }

    #[cold]
    fn queue_use(&self, token: &impl Presented, now: Timestamp, counters: &Counters) {
        if !self.used.push(Used { digest: token.digest(), key_id: token.key_id(), last_used: now }) {
            // The token is queued in the next round: there is room again when that begins, and none before.
            Counters::bump(&counters.usage_drops);
        }
    }

    /// Marks a ROTATED answer.
    pub fn late(&self, token: &impl Presented, now: Timestamp, counters: &Counters) {
        if !token.claim_late_report(now) {
            return;
        }
        let (digest, key_id, account_id) = (token.digest(), token.key_id(), token.account_id());
        if !self.late_hour.lock().unwrap_or_else(PoisonError::into_inner).takes(&account_id, now) {
            // Not reported again before the token's own hour is over.
            return Counters::bump(&counters.late_folded);
        }
        if !self.late.push(LateToken { digest, key_id, account_id, time: now }) {
            token.drop_late_report();
            Counters::bump(&counters.late_drops);
        }
    }

    /// Takes all marks of use, one a token, sorted by digest so that batches lock rows in one order.
    /// `latest` returns when a token was last used, which may be after it was queued.
    pub fn drain_used(&self, latest: impl Fn(&HashedToken) -> Option<Timestamp>) -> Vec<Used> {
        // First: what is claimed from here on is of the next round.
        self.round.fetch_add(1, Ordering::Relaxed);
        let mut used = self.used.drain();
        for used in &mut used {
            used.last_used = latest(&used.digest).map_or(used.last_used, |latest| latest.max(used.last_used));
        }
        used.sort_unstable_by(|a, b| a.digest.as_bytes().cmp(b.digest.as_bytes()).then(b.last_used.cmp(&a.last_used)));
        used.dedup_by(|later, first| later.digest == first.digest);
        used
    }

    /// Takes all late presentations.
    pub fn drain_late(&self) -> Vec<LateToken> {
        self.late.drain()
    }

    /// Returns the round that uses are claimed in.
    pub fn round(&self) -> i64 {
        self.round.load(Ordering::Relaxed)
    }
}

// === impl LateHour ===

impl LateHour {
    /// Counts one more late presentation of an account's tokens, and reports whether it is to be recorded.
    fn takes(&mut self, account: &AccountId, now: Timestamp) -> bool {
        if now.as_micros().saturating_sub(self.began.as_micros()) >= LATE_INTERVAL.as_micros() {
            (self.began, self.recorded) = (now, 0);
            self.by_account.clear();
        }
        if self.recorded >= self.max {
            return false;
        }
        let of_account = self.by_account.entry(account.clone()).or_default();
        if *of_account >= self.per_account_max {
            return false;
        }
        *of_account += 1;
        self.recorded += 1;
        true
    }
}

/// A bounded queue of preallocated slots: pushing neither blocks nor allocates.
struct MarkQueue<T> {
    sender: SyncSender<T>,
    receiver: Mutex<Receiver<T>>,
}

impl<T> MarkQueue<T> {
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
    use super::*;
    use crate::{
        domain::verification::TokenFacts,
        verify::{cache::entry::Entry, fake},
    };

    fn entry(byte: u8) -> Entry {
        Entry::new(HashedToken::from_bytes([byte; 32]), fake::facts(1), fake::no_catalogue(), fake::stamp(1))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    fn marks(used_marks_max: usize, late_tokens_max: usize) -> Marks {
        Marks::new(&VerifyLimits { used_marks_max, late_tokens_max, ..VerifyLimits::default() })
    }

    fn entry_of(account: &str, byte: u8) -> Entry {
        let facts = TokenFacts { account_id: AccountId::from_stored(account), ..fake::facts(1) };
        Entry::new(HashedToken::from_bytes([byte; 32]), facts, fake::no_catalogue(), fake::stamp(1))
    }

    #[test]
    fn k8_late_presentations_are_bounded_by_the_hour_in_all_and_by_account() {
        let limits = VerifyLimits {
            late_events_per_hour_max: 7,
            late_events_per_account_hour_max: 5,
            ..VerifyLimits::default()
        };
        let (marks, counters) = (Marks::new(&limits), Counters::default());
        let present = |account: &str, secs| {
            (0..=255).for_each(|byte| marks.late(&entry_of(account, byte), at(secs), &counters));
            marks.drain_late().len()
        };
        assert_eq!([present("a", 1), present("a", 2), present("b", 3), present("c", 3_600)], [5, 0, 2, 0]);
        assert_eq!(counters.late_folded.load(Ordering::Relaxed), 4 * 256 - 7);
        // Another hour.
        assert_eq!([present("b", 3_601), present("a", 3_602)], [5, 2]);
        assert_eq!(counters.late_drops.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn k9_usage_never_blocks() {
        let (marks, counters) = (marks(1, 1), Counters::default());
        let (a, b) = (entry(1), entry(2));
        marks.used(&a, at(1), &counters);
        marks.used(&b, at(1), &counters);
        assert_eq!(counters.usage_drops.load(Ordering::Relaxed), 1);
        assert_eq!(marks.drain_used(|_| None).len(), 1);
        // What was dropped is marked by a later use.
        marks.used(&b, at(1), &counters);
        assert_eq!(marks.drain_used(|_| None)[0].digest, *b.digest());
    }

    #[test]
    fn k9_uses_are_drained_one_a_token_sorted_by_digest() {
        let (marks, counters) = (marks(9, 1), Counters::default());
        // Two entries of one token: the first was refused by a fence and read again.
        for (byte, time) in [(7, 5), (3, 1), (7, 9)] {
            marks.used(&entry(byte), at(time), &counters);
        }
        let drained: Vec<_> =
            marks.drain_used(|_| None).iter().map(|u| (u.digest.as_bytes()[0], u.last_used)).collect();
        assert_eq!(drained, [(3, at(1)), (7, at(9))]);
        assert!(marks.drain_used(|_| None).is_empty());
    }

    #[test]
    fn k8_a_late_token_that_does_not_fit_is_reported_by_a_later_presentation() {
        let (marks, counters) = (marks(1, 1), Counters::default());
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
