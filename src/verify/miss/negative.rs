//! Digests that were not on record, with the revision at which that was read.
//!
//! They live apart from the entries, in their own bound and under their own fence: a flood of well-formed
//! unknown tokens evicts only unknown tokens. What is remembered here is a database's answer; absence is
//! never inferred (V2).

use quick_cache::{
    UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::{
    domain::{log::revision::RevisionStamp, token::HashedToken},
    verify::cache::entry_cache::BuildDigestHasher,
};

/// Unknown digests.
pub struct NegativeCache(Cache<HashedToken, RevisionStamp, UnitWeighter, BuildDigestHasher>);

impl NegativeCache {
    /// Creates an empty one of about `digests_max`.
    #[must_use]
    pub fn new(digests_max: usize) -> Self {
        let (hasher, lifecycle) = (BuildDigestHasher::default(), DefaultLifecycle::default());
        Self(Cache::with(digests_max, digests_max as u64, UnitWeighter, hasher, lifecycle))
    }

    /// Returns the revision at which the digest was read to be absent.
    #[must_use]
    pub fn absent_at(&self, digest: &HashedToken) -> Option<RevisionStamp> {
        self.0.get(digest)
    }

    /// Remembers an absence.
    pub fn insert(&self, digest: HashedToken, revision: RevisionStamp) {
        let known = self.0.peek(&digest).unwrap_or(revision);
        self.0.insert(digest, revision.max(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::fake::stamp;

    fn digest(byte: u8) -> HashedToken {
        HashedToken::from_bytes([byte; 32])
    }

    #[test]
    fn an_absence_keeps_the_latest_revision_it_was_read_at() {
        let negative = NegativeCache::new(10);
        assert_eq!(negative.absent_at(&digest(1)), None);
        negative.insert(digest(1), stamp(7));
        negative.insert(digest(1), stamp(6));
        assert_eq!(negative.absent_at(&digest(1)), Some(stamp(7)));
    }

    #[test]
    fn it_is_bounded() {
        let negative = NegativeCache::new(64);
        (0..=255).for_each(|byte| negative.insert(digest(byte), stamp(1)));
        assert!((0..=255).filter(|byte| negative.absent_at(&digest(*byte)).is_some()).count() <= 64);
    }
}
