//! Answers from memory: what a hot verification is, for one token and for many.
//!
//! No lock, no database, no allocation. The order of its steps is V1's: the token's bytes are in hand, then the lease is
//! loaded, then the clock read, then the applied revision, then the entry, and last the fences.

use std::borrow::Borrow;

use super::{
    answer::{Answer, Basis},
    cache::{Cached, Room},
    counters::{ByOutcome, Counters},
    entry::Entry,
    lease::Standing,
    tables::InHand,
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
    tables: InHand,
}

/// Tokens of a batch that are answered together. What is none has no digest of its own.
struct Group<'t> {
    parsed: [Option<ParsedToken<'t>>; TOGETHER],
    digests: [HashedToken; TOGETHER],
}

const NO_DIGEST: HashedToken = HashedToken::from_bytes([0; 32]);

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
    pub fn verify<'m, A, T>(&'m self, question: Question<'_, A, T>, room: &'m mut Room) -> Option<Answer<'m>>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let answer = match ParsedToken::parse(question.token) {
            None => self.verifier.malformed(),
            Some(parsed) => self.answer(&parsed, &self.first_digest(&parsed), question.requirement, room)?,
        };
        self.verifier.counters().answered_from_memory(answer.outcome);
        Some(answer)
    }

    /// Many answers, in their order. `each` is given an answer's place, and `None` if the database must be asked for
    /// that one.
    pub fn verify_many<A, T>(&self, questions: &[Question<'_, A, T>], mut each: impl FnMut(usize, Option<&Answer<'_>>))
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        let (mut counts, mut room) = (ByOutcome::default(), Room::default());
        for (number, questions) in questions.chunks(TOGETHER).enumerate() {
            let mut tokens = [&[][..]; TOGETHER];
            tokens.iter_mut().zip(questions).for_each(|(token, question)| *token = question.token);
            let group = self.gather(&tokens);
            for (i, question) in questions.iter().enumerate() {
                let answer = match &group.parsed[i] {
                    None => Some(self.verifier.malformed()),
                    Some(parsed) => self.answer(parsed, &group.digests[i], question.requirement, &mut room),
                };
                if let Some(answer) = &answer {
                    counts[answer.outcome as usize] += 1;
                }
                each(number * TOGETHER + i, answer.as_ref());
            }
        }
        self.verifier.counters().many_from_memory(&counts);
    }

    /// Parses and hashes some tokens, and asks memory for all of their entries before the first is looked at: so their
    /// ways overlap, and a batch pays for one rather than for each.
    #[inline(never)]
    fn gather<'t>(&self, tokens: &[&'t [u8]; TOGETHER]) -> Group<'t> {
        let mut group = Group { parsed: [None; TOGETHER], digests: [NO_DIGEST; TOGETHER] };
        for ((parsed, digest), token) in group.parsed.iter_mut().zip(&mut group.digests).zip(tokens) {
            *parsed = ParsedToken::parse(token);
            if let Some(parsed) = parsed {
                *digest = self.first_digest(parsed);
            }
        }
        let touched = group.digests.iter().fold(0, |all, digest| all ^ self.tables.touch(digest));
        // Nobody needs it, and the compiler must not find out.
        std::hint::black_box(touched);
        group
    }

    /// A token that was verified before, by its digest.
    pub(super) fn verify_again<'m>(&'m self, digest: &HashedToken, room: &'m mut Room) -> Option<Answer<'m>> {
        let spot = self.tables.find(digest, room).filter(|_| self.serves(room))?;
        let answer = self.judged(spot.cached(room), None::<&Requirement>);
        self.verifier.counters().answered_from_memory(answer.outcome);
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
    fn answer<'m, A, T>(
        &'m self,
        parsed: &ParsedToken<'_>,
        first: &HashedToken,
        requirement: Option<&Requirement<A, T>>,
        room: &'m mut Room,
    ) -> Option<Answer<'m>>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        match self.tables.find(first, room) {
            Some(spot) if self.serves(room) => Some(self.judged(spot.cached(room), requirement)),
            _ => self.answer_otherwise(parsed, first, requirement, room),
        }
    }

    /// A token that is not served under the first pepper: under another, or known to be unknown.
    #[cold]
    fn answer_otherwise<'m, A, T>(
        &'m self,
        parsed: &ParsedToken<'_>,
        first: &HashedToken,
        requirement: Option<&Requirement<A, T>>,
        room: &'m mut Room,
    ) -> Option<Answer<'m>>
    where
        A: Borrow<str>,
        T: Borrow<str>,
    {
        for pepper in &self.verifier.peppers[1..] {
            if let Some(spot) = self.tables.find(&parsed.hash(pepper), room)
                && self.serves(room)
            {
                return Some(self.judged(spot.cached(room), requirement));
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
    fn serves(&self, found: &Room) -> bool {
        let (buckets, revision) = found.covered();
        let serves = self.verifier.replica.fences.serves(buckets, revision);
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
