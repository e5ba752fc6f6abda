//! The cache: digest → entry, bounded. It decides nothing: what it returns is a candidate, and whether it
//! may be served is for the fences and the lease (V1).

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use quick_cache::{
    UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};

use super::entry::Entry;
use crate::domain::token::HashedToken;

/// Tokens on record, by digest.
pub struct EntryCache(Cache<HashedToken, Arc<Entry>, UnitWeighter, BuildDigestHasher>);

/// For tables keyed by digest.
pub type BuildDigestHasher = BuildHasherDefault<DigestHasher>;

/// Takes a digest's own bytes for its hash: they are uniform, and nobody without the pepper can choose
/// them.
#[derive(Default)]
pub struct DigestHasher(u64);

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

impl EntryCache {
    /// An empty cache of about `entries_max`.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        let (hasher, lifecycle) = (BuildDigestHasher::default(), DefaultLifecycle::default());
        Self(Cache::with(entries_max, entries_max as u64, UnitWeighter, hasher, lifecycle))
    }

    /// A candidate for an answer.
    #[must_use]
    pub fn get(&self, digest: &HashedToken) -> Option<Arc<Entry>> {
        self.0.get(digest)
    }

    /// True if the token was on record when last seen, without counting as a use.
    #[must_use]
    pub fn contains(&self, digest: &HashedToken) -> bool {
        self.0.contains_key(digest)
    }

    /// Remembers an entry in place of what was known of its token.
    pub fn insert(&self, entry: Arc<Entry>) {
        if let Some(older) = self.0.peek(entry.digest()) {
            if older.revision() > entry.revision() {
                return;
            }
            entry.inherit(&older);
        }
        self.0.insert(*entry.digest(), entry);
    }

    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::verify::fake;

    fn digest(byte: u8) -> HashedToken {
        HashedToken::from_bytes([byte; 32])
    }

    fn entry(byte: u8, revision: i64) -> Arc<Entry> {
        Arc::new(Entry::new(digest(byte), fake::facts(1), fake::no_catalogue(), fake::stamp(revision)))
    }

    #[test]
    fn a_digest_is_its_own_hash() {
        assert_eq!(BuildDigestHasher::default().hash_one(digest(3)), u64::from_le_bytes([3; 8]));
    }

    #[test]
    fn an_older_fill_that_comes_late_does_not_replace_a_newer_one() {
        let cache = EntryCache::new(100);
        cache.insert(entry(1, 5));
        cache.insert(entry(1, 4));
        assert_eq!(cache.get(&digest(1)).map(|e| e.revision()), Some(fake::stamp(5)));
    }

    #[test]
    fn it_is_bounded() {
        let cache = EntryCache::new(64);
        (0..=255).for_each(|byte| cache.insert(entry(byte, 1)));
        assert!(cache.len() <= 64 && !cache.is_empty());
    }
}
