//! What is remembered of a token on record, and when it was last good.
//!
//! An entry is never changed when its key changes: the fences refuse it and another takes its place. It
//! knows neither fences nor lease, only the buckets and the revision by which they judge it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use super::fence::Buckets;
use crate::domain::{
    catalogue::Catalogue,
    revision::RevisionStamp,
    time::{Span, Timestamp},
    token::HashedToken,
    verification::TokenFacts,
};

/// A token's use is marked again only after this long, so that a hot key's entry is not written to by
/// every core on every request. A small part of the minute that K9 allows.
const USE_RESOLUTION: Span = Span::from_micros(250_000).expect("not negative");
/// A presentation of an ended token is recorded at most this often (K8).
const LATE_INTERVAL: Span = Span::from_secs(60 * 60);
const NEVER: i64 = i64::MIN;

/// A token on record, as one snapshot of the database had it.
#[derive(Debug)]
pub struct Entry {
    digest: HashedToken,
    facts: TokenFacts,
    catalogue: Arc<Catalogue>,
    revision: RevisionStamp,
    buckets: Buckets,
    /// Database time in microseconds; [`NEVER`] if not used since it was read.
    last_used: AtomicI64,
    /// True while a mark of use waits to be drained.
    marked: AtomicBool,
    /// Database time in microseconds when a late presentation was last reported.
    late_reported: AtomicI64,
}

impl Entry {
    /// An entry of what a snapshot at `revision` said.
    #[must_use]
    pub fn new(digest: HashedToken, facts: TokenFacts, catalogue: Arc<Catalogue>, revision: RevisionStamp) -> Self {
        let buckets = Buckets::of(facts.key_id, &facts.account_id);
        Self {
            digest,
            facts,
            catalogue,
            revision,
            buckets,
            last_used: AtomicI64::new(NEVER),
            marked: AtomicBool::new(false),
            late_reported: AtomicI64::new(NEVER),
        }
    }

    /// Takes over from an entry of the same token when it was last used and last reported late: a
    /// refreshed entry must not report the same presentation again.
    pub(super) fn inherit(&self, older: &Self) {
        self.last_used.fetch_max(older.last_used.load(Ordering::Relaxed), Ordering::Relaxed);
        self.late_reported.fetch_max(older.late_reported.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The digest that is on record.
    #[must_use]
    pub fn digest(&self) -> &HashedToken {
        &self.digest
    }

    /// What the token is good for.
    #[must_use]
    pub fn facts(&self) -> &TokenFacts {
        &self.facts
    }

    /// The catalogue that the facts' sets are closed under.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// The revision that it was read at.
    #[must_use]
    pub fn revision(&self) -> RevisionStamp {
        self.revision
    }

    /// The fences that cover it.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.buckets
    }

    /// Notes a use; true if the entry must be queued to have it written (K9).
    pub(super) fn mark_used(&self, now: Timestamp) -> bool {
        let now = now.as_micros();
        if now.saturating_sub(self.last_used.load(Ordering::Relaxed)) < USE_RESOLUTION.as_micros() {
            return false;
        }
        // The time before the mark, and read after the mark is taken: a use is never lost between them.
        self.last_used.fetch_max(now, Ordering::Relaxed);
        !self.marked.swap(true, Ordering::AcqRel)
    }

    /// Takes the mark back and tells when the token was last used; `None` if it never was.
    pub(super) fn take_used(&self) -> Option<Timestamp> {
        self.marked.swap(false, Ordering::AcqRel);
        let last = self.last_used.load(Ordering::Relaxed);
        (last != NEVER).then(|| Timestamp::from_micros(last))
    }

    /// Takes the mark back because it could not be queued: the next use marks again.
    pub(super) fn drop_mark(&self) {
        self.last_used.store(NEVER, Ordering::Relaxed);
        self.marked.store(false, Ordering::Release);
    }

    /// True for one presentation of the ended token in an hour of database time (K8).
    pub(super) fn claim_late_report(&self, now: Timestamp) -> bool {
        let last = self.late_reported.load(Ordering::Relaxed);
        now.as_micros().saturating_sub(last) >= LATE_INTERVAL.as_micros()
            && self.late_reported.compare_exchange(last, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Lets a later presentation report, because this one could not be queued.
    pub(super) fn drop_late_report(&self) {
        self.late_reported.store(NEVER, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::fake;

    fn entry() -> Entry {
        Entry::new(HashedToken::from_bytes([1; 32]), fake::facts(1), fake::no_catalogue(), fake::stamp(1))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    #[test]
    fn k9_a_use_is_queued_once_until_it_is_drained() {
        let entry = entry();
        assert!(entry.mark_used(at(1)));
        assert!(!entry.mark_used(at(2)));
        assert_eq!(entry.take_used(), Some(at(2)));
        assert!(entry.mark_used(at(3)));
    }

    #[test]
    fn k9_uses_close_together_write_once() {
        let entry = entry();
        assert!(entry.mark_used(at(1)));
        assert_eq!(entry.take_used(), Some(at(1)));
        assert!(!entry.mark_used(Timestamp::from_micros(1_249_999)));
        assert!(entry.mark_used(Timestamp::from_micros(1_250_000)));
    }

    #[test]
    fn k9_a_mark_that_was_dropped_is_made_again_by_the_next_use() {
        let entry = entry();
        assert!(entry.mark_used(at(1)));
        entry.drop_mark();
        assert!(entry.mark_used(at(1)));
    }

    #[test]
    fn k8_a_late_token_is_reported_once_an_hour_even_if_its_entry_is_refreshed() {
        let first = entry();
        assert!(first.claim_late_report(at(1)));
        assert!(!first.claim_late_report(at(3_600)));
        let refreshed = entry();
        refreshed.inherit(&first);
        assert!(!refreshed.claim_late_report(at(3_600)));
        assert!(refreshed.claim_late_report(at(3_601)));
    }
}
