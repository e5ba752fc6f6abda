//! Answers from memory: what a hot verification is, for one token and for many.
//!
//! No lock, no database, and on a hit no allocation. The order of its steps is V1's: the token's bytes are in hand,
//! then the lease is loaded, then the clock read, then the applied revision, then the entry, and last the fences.

use std::borrow::Borrow;

use super::{
    answer::{Basis, Found, Verification},
    cache::Cached,
    counters::{ByOutcome, Counters},
    lease,
    usage::Presented,
    verifier::Verifier,
};
use crate::domain::{
    revision::RevisionStamp,
    time::Timestamp,
    token::{HashedToken, ParsedToken},
    verification::{Outcome, Requirement},
};

/// Authenticity only.
pub(super) const NO_REQUIREMENT: Option<&Requirement> = None;

/// So many tokens of a batch are asked for together: their entries come from memory at the same time.
const TOGETHER: usize = 8;

/// One question of a batch.
#[derive(Clone, Copy)]
pub struct Question<'a, A, T> {
    /// The token's bytes, as presented.
    pub token: &'a [u8],
    /// What it must be good for; `None`: authenticity only.
    pub requirement: Option<&'a Requirement<A, T>>,
}

impl Verifier {
    /// Answers from memory. `None` if the database must be asked, by [`Verifier::verify`].
    #[must_use]
    pub fn cached(&self, token: &[u8], requirement: Option<&Requirement>) -> Option<Verification> {
        let Some(parsed) = ParsedToken::parse(token) else { return Some(self.malformed()) };
        self.look_up(&parsed, requirement)
    }

    /// Answers many from memory, in their order. `each` is given an answer's place, and `None` if the database must be
    /// asked for that one.
    pub fn cached_many<A, T>(
        &self,
        basis: Option<Basis>,
        questions: &[Question<'_, A, T>],
        mut each: impl FnMut(usize, Option<Verification>),
    ) where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let mut counts = ByOutcome::default();
        for (group, questions) in questions.chunks(TOGETHER).enumerate() {
            let mut digests = [None; TOGETHER];
            let mut touched = 0;
            for (digest, question) in digests.iter_mut().zip(questions) {
                let parsed = ParsedToken::parse(question.token);
                *digest = parsed.map(|parsed| (parsed, parsed.hash(&self.peppers[0])));
                touched ^= digest.as_ref().map_or(0, |(_, digest)| self.loader.cache.touch(digest));
            }
            // Nobody needs it, and the compiler must not find out.
            std::hint::black_box(touched);
            for (i, (question, parsed)) in questions.iter().zip(digests).enumerate() {
                let answer = match parsed {
                    None => Some(self.malformed_answer()),
                    Some((parsed, first)) => {
                        basis.and_then(|basis| self.answer(basis, &parsed, first, question.requirement))
                    }
                };
                if let Some(answer) = &answer {
                    counts[answer.outcome() as usize] += 1;
                }
                each(group * TOGETHER + i, answer);
            }
        }
        self.counters().many_from_memory(&counts);
    }

    /// Answers one from memory, together with others of the same request. `None` if the database must be asked.
    #[must_use]
    pub fn cached_at<A, T>(&self, basis: Basis, question: Question<'_, A, T>) -> Option<Verification>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let Some(parsed) = ParsedToken::parse(question.token) else { return Some(self.malformed()) };
        let answer = self.answer(basis, &parsed, parsed.hash(&self.peppers[0]), question.requirement)?;
        self.counters().from_memory(answer.outcome());
        Some(answer)
    }

    pub(super) fn look_up(&self, parsed: &ParsedToken<'_>, requirement: Option<&Requirement>) -> Option<Verification> {
        let answer = self.answer(self.memory()?, parsed, parsed.hash(&self.peppers[0]), requirement)?;
        self.counters().from_memory(answer.outcome());
        Some(answer)
    }

    /// The lease, the clock, then `applied`: in this order, before any entry and any fence. `None` if
    /// nothing may be answered from memory, or without the database's time.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> Option<Basis> {
        let replica = &self.replica;
        let lease = replica.lease.end();
        let boot = replica.clock.boot_micros();
        let revision = replica.applied.stamp()?;
        let now = replica.database_clock.at(boot)?;
        match lease.standing(boot) {
            lease::Standing::Leased => Some(Basis { revision, now, stale: false }),
            lease::Standing::Stale => Some(Basis { revision, now, stale: true }),
            lease::Standing::Lapsed => None,
        }
    }

    /// An answer that is not counted yet. `first` is the digest under the first pepper.
    #[inline]
    fn answer<A, T>(
        &self,
        basis: Basis,
        parsed: &ParsedToken<'_>,
        first: HashedToken,
        requirement: Option<&Requirement<A, T>>,
    ) -> Option<Verification>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let others = self.peppers[1..].iter().map(|pepper| parsed.hash(pepper));
        for digest in std::iter::once(first).chain(others) {
            let Some(cached) = self.loader.cache.get(&digest) else { continue };
            if self.replica.fences.serves(cached.buckets(), cached.revision()) {
                return Some(self.known(cached, basis, requirement));
            }
            Counters::bump(&self.counters().fence_refusals);
        }
        let absent_at = self.loader.negative.absent_at(&first)?;
        if self.replica.fences.serves_absence(absent_at) {
            self.note_stale(basis.stale);
            return Some(Verification::unknown(basis.at_least(absent_at)));
        }
        Counters::bump(&self.counters().fence_refusals);
        None
    }

    /// A cached token that the fences let pass, judged and counted.
    pub(super) fn judged(&self, cached: Cached, basis: Basis, requirement: Option<&Requirement>) -> Verification {
        let answer = self.known(cached, basis, requirement);
        self.counters().from_memory(answer.outcome());
        answer
    }

    #[inline]
    fn known<A, T>(&self, cached: Cached, basis: Basis, requirement: Option<&Requirement<A, T>>) -> Verification
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let Basis { revision, now, stale } = basis.at_least(cached.revision());
        let outcome = cached.standing().outcome(now, || requirement.is_none_or(|needed| cached.meets(needed)));
        self.mark(&cached, outcome, now);
        self.note_stale(stale);
        Verification { outcome, revision: revision.revision(), stale, found: Found::Cached(cached) }
    }

    #[inline]
    pub(super) fn mark(&self, token: &impl Presented, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Valid => self.loader.marks.used(token, now, self.counters()),
            Outcome::Rotated => self.loader.marks.late(token, now, self.counters()),
            _ => {}
        }
    }

    #[inline]
    fn note_stale(&self, stale: bool) {
        if stale {
            Counters::bump(&self.counters().stale);
        }
    }

    pub(super) fn malformed(&self) -> Verification {
        self.counters().from_memory(Outcome::Malformed);
        self.malformed_answer()
    }

    /// No state is asked, so nothing of it can be stale.
    fn malformed_answer(&self) -> Verification {
        let revision = self.applied().unwrap_or(RevisionStamp::ZERO.revision());
        Verification { outcome: Outcome::Malformed, revision, stale: false, found: Found::Nothing }
    }
}
