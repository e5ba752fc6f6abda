//! Tokens that were good for nothing when they were read: ended, or of a key that is disabled, deleted or expired.
//!
//! They live apart from the good ones, in their own bound: a tenant can end any number of tokens, and presenting them
//! all must evict no good one. Only what an answer of them says is kept, which is neither permissions nor teams. What
//! is found here is a candidate like any other: whether it may be served is for the fences and the lease (V1).

use std::sync::Arc;

use quick_cache::{
    UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::{
    domain::{
        log::revision::RevisionStamp,
        permissions::{catalogue::Catalogue, permission::PermissionSet},
        token::HashedToken,
        verification::TokenFacts,
    },
    verify::cache::{entry::Entry, entry_cache::BuildDigestHasher},
};

/// Ended tokens, by digest.
pub struct EndedTokens {
    entries: Cache<HashedToken, Arc<Entry>, UnitWeighter, BuildDigestHasher>,
    /// An empty catalogue: an old one must not be kept alive for a token of which no permissions are kept.
    catalogue: Arc<Catalogue>,
}

impl EndedTokens {
    /// Creates an empty one of about `tokens_max`.
    #[must_use]
    pub fn new(tokens_max: usize) -> Self {
        let (hasher, lifecycle) = (BuildDigestHasher::default(), DefaultLifecycle::default());
        let catalogue = Arc::new(Catalogue::new(RevisionStamp::ZERO.revision(), vec![]));
        Self { entries: Cache::with(tokens_max, tokens_max as u64, UnitWeighter, hasher, lifecycle), catalogue }
    }

    /// Returns a candidate for an answer.
    #[must_use]
    pub fn get(&self, digest: &HashedToken) -> Option<Arc<Entry>> {
        self.entries.get(digest)
    }

    /// Remembers an ended token in place of what was known of it, unless that is newer.
    pub fn insert(&self, entry: &Entry) {
        let older = self.entries.peek(entry.digest());
        if older.as_ref().is_some_and(|older| older.revision() > entry.revision()) {
            return;
        }
        let facts = TokenFacts {
            account_permissions: PermissionSet::EMPTY,
            team_permissions: PermissionSet::EMPTY,
            team_ids: Arc::default(),
            ..entry.facts().clone()
        };
        let kept = Entry::new(*entry.digest(), facts, self.catalogue.clone(), entry.revision());
        if let Some(older) = older {
            kept.continue_reports_of(&older);
        }
        self.entries.insert(*entry.digest(), Arc::new(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{api_key::ApiKeyState, id::TeamId, time::Timestamp},
        verify::{fake, usage::Presented},
    };

    fn entry(byte: u8, revision: i64) -> Entry {
        let team_ids = (0..1_000).map(|team| TeamId::from_stored(&team.to_string())).collect();
        let facts = TokenFacts { state: ApiKeyState::Deleted, team_ids, ..fake::facts(1) };
        Entry::new(HashedToken::from_bytes([byte; 32]), facts, fake::no_catalogue(), fake::stamp(revision))
    }

    #[test]
    fn it_keeps_what_an_answer_says_and_the_latest_of_it() {
        let (ended, first) = (EndedTokens::new(10), entry(1, 7));
        ended.insert(&first);
        ended.insert(&entry(1, 6));
        let kept = ended.get(first.digest()).expect("kept");
        assert_eq!((kept.revision(), kept.buckets()), (fake::stamp(7), first.buckets()));
        assert_eq!((kept.facts().state, kept.facts().key_id), (ApiKeyState::Deleted, first.facts().key_id));
        assert!(kept.facts().team_ids.is_empty() && kept.catalogue().permissions().is_empty());
    }

    #[test]
    fn k8_a_late_token_is_reported_once_an_hour_even_if_it_is_read_again() {
        let (ended, now) = (EndedTokens::new(10), Timestamp::from_micros(1));
        ended.insert(&entry(1, 1));
        assert!(ended.get(entry(1, 1).digest()).expect("kept").claim_late_report(now));
        ended.insert(&entry(1, 2));
        assert!(!ended.get(entry(1, 1).digest()).expect("kept").claim_late_report(now));
    }

    #[test]
    fn it_is_bounded() {
        let ended = EndedTokens::new(64);
        (0..=255).for_each(|byte| ended.insert(&entry(byte, 1)));
        assert!((0..=255).filter(|byte| ended.get(entry(*byte, 1).digest()).is_some()).count() <= 64);
    }
}
