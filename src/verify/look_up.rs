//! Answers from memory: what a hot verification is, for one token and for many.
//!
//! No lock, no database, no allocation. The order of its steps is V1's: the token's bytes are in hand, then the lease is
//! loaded, then the clock read, then the applied revision, then the entry, and last the fences.

use std::{borrow::Borrow, sync::Arc};

use arc_swap::Guard;

use super::{
    answer::{Answer, Basis},
    cache::{Cached, Tables},
    counters::{ByOutcome, Counters},
    entry::Entry,
    lease::Standing,
    usage::Presented,
    verifier::Verifier,
};
use crate::domain::{
    revision::RevisionStamp,
    time::Timestamp,
    token::{HashedToken, ParsedToken},
    verification::{Outcome, Requirement},
};

/// So many tokens of a batch are asked for together: their entries come from memory at the same time.
const TOGETHER: usize = 16;

/// A question about a token.
#[derive(Clone, Copy)]
pub struct Question<'a, A, T> {
    /// The token's bytes, as presented.
    pub token: &'a [u8],
    /// What it must be good for; `None`: authenticity only.
    pub requirement: Option<&'a Requirement<A, T>>,
}

/// What memory says, on the lease, the clock and the applied revision of one moment: for one request, or one message of
/// a stream, that was in hand by then. Never for a later one.
pub struct Memory<'a> {
    verifier: &'a Verifier,
    basis: Basis,
    tables: Guard<Arc<Tables>>,
}

impl Verifier {
    /// What memory says now. `None` if nothing may be answered from it: then the database decides.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> Option<Memory<'_>> {
        let basis = self.basis()?;
        Some(Memory { verifier: self, basis, tables: self.loader.cache.tables() })
    }

    /// The lease, the clock, then `applied`: in this order, before any entry and any fence. `None` if
    /// nothing may be answered from memory, or without the database's time.
    #[inline]
    pub(super) fn basis(&self) -> Option<Basis> {
        let replica = &self.replica;
        let lease = replica.lease.end();
        let boot = replica.clock.boot_micros();
        let revision = replica.applied.stamp()?;
        let now = replica.database_clock.at(boot)?;
        match lease.standing(boot) {
            Standing::Leased => Some(Basis { revision, now, stale: false }),
            Standing::Stale => Some(Basis { revision, now, stale: true }),
            Standing::Lapsed => None,
        }
    }

    /// No state is asked, so nothing of it can be stale.
    pub(super) fn malformed<'a>(&self) -> Answer<'a> {
        let revision = self.applied().unwrap_or(RevisionStamp::ZERO.revision());
        Answer::without_token(Outcome::Malformed, revision, false)
    }

    #[inline]
    pub(super) fn mark(&self, token: &impl Presented, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Valid => self.loader.marks.used(token, now, self.counters()),
            Outcome::Rotated => self.loader.marks.late(token, now, self.counters()),
            _ => {}
        }
    }
}

impl Memory<'_> {
    /// One answer. `None` if the database must be asked, by [`Verifier::verify`].
    #[inline]
    #[must_use]
    pub fn verify<A, T>(&self, question: Question<'_, A, T>) -> Option<Answer<'_>>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let answer = match ParsedToken::parse(question.token) {
            None => self.verifier.malformed(),
            Some(parsed) => self.answer(&parsed, self.first_digest(&parsed), question.requirement)?,
        };
        self.verifier.counters().from_memory(answer.outcome);
        Some(answer)
    }

    /// Many answers, in their order. `each` is given an answer's place, and `None` if the database must be asked for
    /// that one.
    pub fn verify_many<A, T>(&self, questions: &[Question<'_, A, T>], mut each: impl FnMut(usize, Option<&Answer<'_>>))
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let mut counts = ByOutcome::default();
        for (group, questions) in questions.chunks(TOGETHER).enumerate() {
            let mut parsed = [None; TOGETHER];
            for (parsed, question) in parsed.iter_mut().zip(questions) {
                *parsed = ParsedToken::parse(question.token).map(|token| (token, self.first_digest(&token)));
            }
            // By themselves, with nothing between them that one would have to wait for.
            let touched = parsed.iter().flatten().fold(0, |all, (_, digest)| all ^ self.tables.touch(digest));
            // Nobody needs it, and the compiler must not find out.
            std::hint::black_box(touched);
            for (i, (question, parsed)) in questions.iter().zip(parsed).enumerate() {
                let answer = match parsed {
                    None => Some(self.verifier.malformed()),
                    Some((parsed, first)) => self.answer(&parsed, first, question.requirement),
                };
                if let Some(answer) = &answer {
                    counts[answer.outcome as usize] += 1;
                }
                each(group * TOGETHER + i, answer.as_ref());
            }
        }
        self.verifier.counters().many_from_memory(&counts);
    }

    /// A token that was verified before, by its digest.
    pub(super) fn verify_again(&self, digest: &HashedToken) -> Option<Answer<'_>> {
        let cached = self.tables.get(digest).filter(|cached| self.serves(cached))?;
        let answer = self.judged(cached, None::<&Requirement>);
        self.verifier.counters().from_memory(answer.outcome);
        Some(answer)
    }

    /// As [`Verifier::still_good`].
    #[must_use]
    pub fn still_good(&self, entry: &Entry) -> bool {
        self.verifier.still_good_at(self.basis, entry)
    }

    #[inline]
    fn first_digest(&self, parsed: &ParsedToken<'_>) -> HashedToken {
        parsed.hash(&self.verifier.peppers[0])
    }

    /// An answer that is not counted yet. `first` is the digest under the first pepper.
    #[inline]
    fn answer<A, T>(
        &self,
        parsed: &ParsedToken<'_>,
        first: HashedToken,
        requirement: Option<&Requirement<A, T>>,
    ) -> Option<Answer<'_>>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        match self.tables.get(&first) {
            Some(cached) if self.serves(&cached) => Some(self.judged(cached, requirement)),
            _ => self.answer_otherwise(parsed, &first, requirement),
        }
    }

    /// A token that is not served under the first pepper: under another, or known to be unknown.
    #[cold]
    fn answer_otherwise<A, T>(
        &self,
        parsed: &ParsedToken<'_>,
        first: &HashedToken,
        requirement: Option<&Requirement<A, T>>,
    ) -> Option<Answer<'_>>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        for pepper in &self.verifier.peppers[1..] {
            let cached = self.tables.get(&parsed.hash(pepper)).filter(|cached| self.serves(cached));
            if let Some(cached) = cached {
                return Some(self.judged(cached, requirement));
            }
        }
        let absent_at = self.verifier.loader.negative.absent_at(first)?;
        if self.verifier.replica.fences.serves_absence(absent_at) {
            self.note_stale();
            return Some(Answer::unknown(self.basis.at_least(absent_at)));
        }
        Counters::bump(&self.verifier.counters().fence_refusals);
        None
    }

    #[inline]
    fn serves(&self, cached: &Cached<'_>) -> bool {
        let serves = self.verifier.replica.fences.serves(cached.buckets(), cached.revision());
        if !serves {
            Counters::bump(&self.verifier.counters().fence_refusals);
        }
        serves
    }

    /// A cached token that the fences let pass.
    #[inline]
    fn judged<'m, A, T>(&'m self, cached: Cached<'m>, requirement: Option<&Requirement<A, T>>) -> Answer<'m>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let Basis { revision, now, stale } = self.basis.at_least(cached.revision());
        let outcome = cached.standing().outcome(now, || requirement.is_none_or(|needed| cached.meets(needed)));
        self.verifier.mark(&cached, outcome, now);
        self.note_stale();
        Answer { outcome, revision: revision.revision(), stale, cached: Some(cached) }
    }

    #[inline]
    fn note_stale(&self) {
        if self.basis.stale {
            Counters::bump(&self.verifier.counters().stale);
        }
    }
}
