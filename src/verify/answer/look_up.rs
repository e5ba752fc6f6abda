//! Answers from memory, for one token and for many: the fast path of a verification.
//!
//! No lock, no database, no allocation. The order of its steps is V1's: the token's bytes have arrived, then the lease
//! is loaded, then the clock read, then the applied revision, then the entry, and last the fences.
//!
//! Among millions, an entry is hardly ever in the processor's caches. So it is prefetched as soon as the digest says
//! where it is, which reads nothing of it. For one token that comes first, and lease, clock and revision are loaded
//! meanwhile ([`CacheReader`]); of many tokens, a group is prefetched together, and answered when the first of it has
//! arrived.

use std::borrow::Borrow;

use super::{
    verification::{Answer, Basis},
    verifier::Verifier,
};
use crate::{
    domain::{
        log::revision::RevisionStamp,
        time::Timestamp,
        token::{FormedToken, HashedToken, ParsedToken},
        verification::{Outcome, OwningTeams, Requirement},
    },
    verify::{
        cache::{
            cached::{Cached, LookupBuffer},
            entry::Entry,
            tables::TablesGuard,
        },
        counters::{ByOutcome, Counters},
        replica::lease::LeaseState,
        usage::Presented,
    },
};

/// How many tokens of a batch are looked up together, so that their entries are fetched from memory at the same time.
const LOOKUPS_PER_GROUP: usize = 16;

/// A question about a token.
#[derive(Clone, Copy)]
pub struct Question<'a, A, T> {
    /// The token's bytes, as presented.
    pub token: &'a [u8],
    /// What it must be good for; `None`: authenticity only.
    pub requirement: Option<&'a Requirement<A, T>>,
}

/// A reader of the cache, before the moment that answers hold for: tokens are prefetched ([`Self::prefetch`]), and then
/// that moment is fixed ([`Self::now`]).
pub struct CacheReader<'a> {
    verifier: &'a Verifier,
    tables: TablesGuard,
}

/// A hashed token, whose entry is being prefetched.
#[derive(Clone, Copy)]
pub struct PendingLookup<'t> {
    /// `None` without a token's form. Its checksum is checked while the entry is prefetched.
    formed: Option<FormedToken<'t>>,
    /// Under the first pepper.
    digest: HashedToken,
}

/// What memory says, on the lease, the clock and the applied revision of one moment: for one request, or one message of
/// a stream, that had arrived by then. Never for a later one.
pub struct Memory<'a> {
    reader: CacheReader<'a>,
    basis: Basis,
}

/// Text without a token's form has no digest of its own.
const MALFORMED_LOOKUP: PendingLookup<'static> =
    PendingLookup { formed: None, digest: HashedToken::from_bytes([0; 32]) };

impl Verifier {
    /// Returns a reader of the cache as it is now.
    #[inline]
    #[must_use]
    pub fn cache_reader(&self) -> CacheReader<'_> {
        CacheReader { verifier: self, tables: self.loader.cache.tables() }
    }

    /// Returns memory as of now. `None` if nothing may be answered from it: then the database decides.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> Option<Memory<'_>> {
        self.cache_reader().now()
    }

    /// Returns the lease, the clock, then `applied`: in this order, before any entry and any fence. `None` if
    /// nothing may be answered from memory, or without the database's time.
    #[inline]
    pub(super) fn basis(&self) -> Option<Basis> {
        let replica = &self.replica;
        let lease = replica.lease.end();
        let boot = replica.clock.boot_micros();
        let revision = replica.applied.stamp()?;
        let now = replica.database_clock.at(boot)?;
        match lease.state_at(boot) {
            LeaseState::Leased => Some(Basis { revision, now, stale: false }),
            LeaseState::Stale => Some(Basis { revision, now, stale: true }),
            LeaseState::Lapsed => None,
        }
    }

    /// Returns MALFORMED, which depends on no state, so that nothing of it can be stale.
    pub(super) fn malformed<'a>(&self) -> Answer<'a> {
        let revision = self.applied().unwrap_or(RevisionStamp::ZERO.revision());
        Answer::without_token(Outcome::Malformed, revision, false)
    }

    #[inline]
    pub(crate) fn mark(&self, token: &impl Presented, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Valid => self.loader.marks.used(token, now, self.counters()),
            Outcome::Rotated => self.loader.marks.late(token, now, self.counters()),
            _ => {}
        }
    }
}

impl<'a> CacheReader<'a> {
    /// Hashes a token and prefetches its cache entry.
    #[inline]
    #[must_use]
    pub fn prefetch<'t>(&self, token: &'t [u8]) -> PendingLookup<'t> {
        let pending = self.hashed(token);
        self.tables.prefetch(&pending.digest);
        pending
    }

    /// Hashes the tokens of some questions and only then prefetches their entries: so the hints that say where those
    /// are get fetched together, instead of each being waited for alone.
    #[inline(never)]
    fn prefetch_all<'t, A, T>(
        &self,
        questions: &[Question<'t, A, T>],
        pending: &mut [PendingLookup<'t>; LOOKUPS_PER_GROUP],
    ) {
        for (pending, question) in pending.iter_mut().zip(questions) {
            *pending = self.hashed(question.token);
        }
        pending[..questions.len()].iter().for_each(|pending| self.tables.prefetch(&pending.digest));
    }

    #[inline]
    fn hashed<'t>(&self, token: &'t [u8]) -> PendingLookup<'t> {
        let formed = FormedToken::parse(token);
        formed.map_or(MALFORMED_LOOKUP, |token| PendingLookup { formed, digest: token.hash(&self.verifier.peppers[0]) })
    }

    /// Fixes the moment that answers hold for: the tokens have arrived. `None` if nothing may be answered from memory.
    #[inline]
    #[must_use]
    pub fn now(self) -> Option<Memory<'a>> {
        let basis = self.verifier.basis()?;
        Some(Memory { reader: self, basis })
    }
}

impl Memory<'_> {
    /// Returns the answer about a prefetched token. `None` if the database must be asked, by
    /// [`Verifier::verify`].
    #[inline]
    #[must_use]
    pub fn answer<'m>(
        &'m self,
        token: &PendingLookup<'_>,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
        buffer: &'m mut LookupBuffer,
    ) -> Option<Answer<'m>> {
        let answer = self.look_up(token, requirement, buffer)?;
        self.verifier().counters().answered_from_memory(answer.outcome);
        Some(answer)
    }

    /// Answers as [`Self::answer`] does, uncounted: for a caller that asks again once the whole request has arrived.
    #[inline]
    #[must_use]
    pub fn peek<'m>(&'m self, token: &PendingLookup<'_>, buffer: &'m mut LookupBuffer) -> Option<Answer<'m>> {
        self.look_up(token, None::<&Requirement>, buffer)
    }

    /// Answers many questions, in their order. `each` is given an answer's place, and `None` if the database must be
    /// asked for that one.
    pub fn verify_many<A, T>(&self, questions: &[Question<'_, A, T>], mut each: impl FnMut(usize, Option<&Answer<'_>>))
    where
        A: Borrow<str>,
        T: OwningTeams,
    {
        let (mut counts, mut buffer, mut pending) =
            (ByOutcome::default(), LookupBuffer::default(), [MALFORMED_LOOKUP; LOOKUPS_PER_GROUP]);
        for (number, questions) in questions.chunks(LOOKUPS_PER_GROUP).enumerate() {
            self.reader.prefetch_all(questions, &mut pending);
            for (i, (token, question)) in pending.iter().zip(questions).enumerate() {
                let answer = self.look_up(token, question.requirement, &mut buffer);
                if let Some(answer) = &answer {
                    counts[answer.outcome as usize] += 1;
                }
                each(number * LOOKUPS_PER_GROUP + i, answer.as_ref());
            }
        }
        self.verifier().counters().many_from_memory(&counts);
    }

    /// Answers again about a token that was verified before, by its digest.
    pub(super) fn verify_again<'m>(&'m self, digest: &HashedToken, buffer: &'m mut LookupBuffer) -> Option<Answer<'m>> {
        let slot = self.reader.tables.find(digest, buffer).filter(|_| self.serves(buffer))?;
        let answer = self.judged(slot.cached(buffer), None::<&Requirement>);
        self.verifier().counters().answered_from_memory(answer.outcome);
        Some(answer)
    }

    /// Checks as [`Verifier::still_good`] does.
    #[must_use]
    pub fn still_good(&self, entry: &Entry) -> bool {
        self.verifier().still_good_at(self.basis, entry)
    }

    #[inline]
    fn verifier(&self) -> &Verifier {
        self.reader.verifier
    }

    #[inline]
    fn look_up<'m>(
        &'m self,
        token: &PendingLookup<'_>,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
        buffer: &'m mut LookupBuffer,
    ) -> Option<Answer<'m>> {
        let Some(parsed) = token.formed.and_then(FormedToken::checked) else {
            return Some(self.verifier().malformed());
        };
        match self.reader.tables.find(&token.digest, buffer) {
            Some(slot) if self.serves(buffer) => Some(self.judged(slot.cached(buffer), requirement)),
            _ => self.answer_under_other_peppers(&parsed, &token.digest, requirement, buffer),
        }
    }

    /// Answers about a token that is not served under the first pepper: it is on record under
    /// another, or is known to be unknown.
    #[cold]
    fn answer_under_other_peppers<'m>(
        &'m self,
        parsed: &ParsedToken<'_>,
        first: &HashedToken,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
        buffer: &'m mut LookupBuffer,
    ) -> Option<Answer<'m>> {
        for pepper in &self.verifier().peppers[1..] {
            if let Some(slot) = self.reader.tables.find(&parsed.hash(pepper), buffer)
                && self.serves(buffer)
            {
                return Some(self.judged(slot.cached(buffer), requirement));
            }
        }
        let absent_at = self.verifier().loader.negative.absent_at(first)?;
        if self.verifier().replica.fences.serves_absence(absent_at) {
            self.note_stale();
            return Some(Answer::unknown(self.basis.at_least(absent_at)));
        }
        Counters::bump(&self.verifier().counters().fence_refusals);
        None
    }

    #[inline]
    fn serves(&self, found: &LookupBuffer) -> bool {
        let (buckets, revision) = found.covered();
        let serves = self.verifier().replica.fences.serves(buckets, revision);
        if !serves {
            Counters::bump(&self.verifier().counters().fence_refusals);
        }
        serves
    }

    /// Judges a cached token that the fences let pass.
    #[inline]
    fn judged<'m>(
        &'m self,
        cached: Cached<'m>,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
    ) -> Answer<'m> {
        let Basis { revision, now, stale } = self.basis.at_least(cached.revision());
        let outcome = cached.standing().outcome(now, || requirement.is_none_or(|needed| cached.meets(needed)));
        self.verifier().mark(&cached, outcome, now);
        self.note_stale();
        Answer { outcome, revision: revision.revision(), stale, cached: Some(cached) }
    }

    #[inline]
    fn note_stale(&self) {
        if self.basis.stale {
            Counters::bump(&self.verifier().counters().stale);
        }
    }
}

#[cfg(test)]
#[path = "tests/look_up.rs"]
mod tests;
