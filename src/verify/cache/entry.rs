//! A token on record, as one snapshot of the database had it, for callers that keep it longer than an answer takes:
//! a fill on its way into the cache, a caller's session.
//!
//! An entry is never changed when its key changes: the fences refuse it and another takes its place. It knows neither
//! fences nor lease, only the buckets and the revision by which they judge it.

use std::sync::{Arc, atomic::AtomicI64, atomic::Ordering};

use super::last_use::{LastUse, NEVER, claim_late_report};
use crate::{
    domain::{
        id::{AccountId, KeyId},
        log::revision::RevisionStamp,
        permissions::catalogue::Catalogue,
        time::Timestamp,
        token::HashedToken,
        verification::{Outcome, TokenFacts},
    },
    verify::{fence::buckets::Buckets, usage::Presented},
};

/// A token on record.
#[derive(Debug)]
pub struct Entry {
    digest: HashedToken,
    facts: TokenFacts,
    catalogue: Arc<Catalogue>,
    revision: RevisionStamp,
    buckets: Buckets,
    last_use: AtomicI64,
    late_reported: AtomicI64,
}

impl Entry {
    /// Creates an entry of what a snapshot at `revision` said.
    #[must_use]
    pub fn new(digest: HashedToken, facts: TokenFacts, catalogue: Arc<Catalogue>, revision: RevisionStamp) -> Self {
        let buckets = Buckets::of(facts.key_id, &facts.account_id);
        let (last_use, late_reported) = (LastUse::word(), AtomicI64::new(NEVER));
        Self { digest, facts, catalogue, revision, buckets, last_use, late_reported }
    }

    /// Returns the digest that is on record.
    #[must_use]
    pub fn digest(&self) -> &HashedToken {
        &self.digest
    }

    /// Returns what the token is good for.
    #[must_use]
    pub fn facts(&self) -> &TokenFacts {
        &self.facts
    }

    /// Returns the catalogue that the facts' sets are closed under.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Returns the revision that it was read at.
    #[must_use]
    pub fn revision(&self) -> RevisionStamp {
        self.revision
    }

    /// Returns the fences that cover it.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.buckets
    }

    /// Reports whether the token is good for nothing at a moment, whatever it holds.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        self.facts.outcome(now, None) != Outcome::Valid
    }

    /// Takes over when the same token's last late presentation was reported (K8).
    pub(crate) fn continue_reports_of(&self, older: &Self) {
        self.late_reported.store(older.late_reported.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Presented for Entry {
    fn digest(&self) -> HashedToken {
        self.digest
    }

    fn key_id(&self) -> KeyId {
        self.facts.key_id
    }

    fn account_id(&self) -> AccountId {
        self.facts.account_id.clone()
    }

    fn claim_use(&self, now: Timestamp, round: i64) -> bool {
        LastUse::claim(&self.last_use, now, round)
    }

    fn claim_late_report(&self, now: Timestamp) -> bool {
        claim_late_report(&self.late_reported, now)
    }

    fn drop_late_report(&self) {
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
    fn k9_a_use_is_queued_once_a_round() {
        let entry = entry();
        assert!(entry.claim_use(at(1), 1));
        assert!(!entry.claim_use(at(2), 1));
        assert!(entry.claim_use(at(2), 2));
    }

    #[test]
    fn k8_a_late_token_is_reported_once_an_hour() {
        let entry = entry();
        assert!(entry.claim_late_report(at(1)));
        assert!(!entry.claim_late_report(at(3_600)));
        assert!(entry.claim_late_report(at(3_601)));
    }
}
