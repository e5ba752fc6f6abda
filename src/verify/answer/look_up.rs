//! Answers from memory: what a hot verification is, for one token and for many.
//!
//! No lock, no database, no allocation. The order of its steps is V1's: the token's bytes are in hand, then the lease is
//! loaded, then the clock read, then the applied revision, then the entry, and last the fences.
//!
//! An entry among millions is far away. So the processor is told to send for it as soon as the digest says where it is,
//! which reads nothing of it. Whoever asks about one token does that first, and lease, clock and revision are loaded
//! while it comes ([`Recall`]); of many tokens, some are sent for together, and answered when the first has come.

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
            entry::Entry,
            entry_cache::{Cached, Room},
            tables::InHand,
        },
        counters::{ByOutcome, Counters},
        replica::lease::Standing,
        usage::Presented,
    },
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

/// What memory holds, before anything is asked: tokens are sent for ([`Self::send_for`]), and then the moment comes
/// that answers are true of ([`Self::now`]).
pub struct Recall<'a> {
    verifier: &'a Verifier,
    tables: InHand,
}

/// A token that was hashed, and whose entry is on its way to the processor.
#[derive(Clone, Copy)]
pub struct Awaited<'t> {
    /// `None` for what is no token. Its checksum is looked at while the entry comes.
    formed: Option<FormedToken<'t>>,
    /// Under the first pepper.
    digest: HashedToken,
}

/// What memory says, on the lease, the clock and the applied revision of one moment: for one request, or one message of
/// a stream, that was in hand by then. Never for a later one.
pub struct Memory<'a> {
    recall: Recall<'a>,
    basis: Basis,
}

/// What is none has no digest of its own.
const NO_TOKEN: Awaited<'static> = Awaited { formed: None, digest: HashedToken::from_bytes([0; 32]) };

impl Verifier {
    /// What memory holds.
    #[inline]
    #[must_use]
    pub fn recall(&self) -> Recall<'_> {
        Recall { verifier: self, tables: self.loader.cache.tables() }
    }

    /// What memory says now. `None` if nothing may be answered from it: then the database decides.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> Option<Memory<'_>> {
        self.recall().now()
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
    pub(crate) fn mark(&self, token: &impl Presented, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Valid => self.loader.marks.used(token, now, self.counters()),
            Outcome::Rotated => self.loader.marks.late(token, now, self.counters()),
            _ => {}
        }
    }
}

impl<'a> Recall<'a> {
    /// Hashes a token, and sends for its entry.
    #[inline]
    #[must_use]
    pub fn send_for<'t>(&self, token: &'t [u8]) -> Awaited<'t> {
        let awaited = self.hashed(token);
        self.tables.prefetch(&awaited.digest);
        awaited
    }

    /// Hashes the tokens of some questions and only then sends for their entries: so not one of the hints that say where
    /// those are is waited for alone.
    #[inline(never)]
    fn send_for_all<'t, A, T>(&self, questions: &[Question<'t, A, T>], awaited: &mut [Awaited<'t>; TOGETHER]) {
        for (awaited, question) in awaited.iter_mut().zip(questions) {
            *awaited = self.hashed(question.token);
        }
        awaited[..questions.len()].iter().for_each(|awaited| self.tables.prefetch(&awaited.digest));
    }

    #[inline]
    fn hashed<'t>(&self, token: &'t [u8]) -> Awaited<'t> {
        let formed = FormedToken::parse(token);
        formed.map_or(NO_TOKEN, |token| Awaited { formed, digest: token.hash(&self.verifier.peppers[0]) })
    }

    /// What memory says now: of tokens that are in hand. `None` if nothing may be answered from it.
    #[inline]
    #[must_use]
    pub fn now(self) -> Option<Memory<'a>> {
        let basis = self.verifier.basis()?;
        Some(Memory { recall: self, basis })
    }
}

impl Memory<'_> {
    /// The answer about a token that was sent for. `None` if the database must be asked, by [`Verifier::verify`].
    #[inline]
    #[must_use]
    pub fn answer<'m>(
        &'m self,
        token: &Awaited<'_>,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
        room: &'m mut Room,
    ) -> Option<Answer<'m>> {
        let answer = self.uncounted(token, requirement, room)?;
        self.verifier().counters().answered_from_memory(answer.outcome);
        Some(answer)
    }

    /// As [`Self::answer`], but not counted: for whoever asks again once all that the answer is for is in hand.
    #[inline]
    #[must_use]
    pub fn look_ahead<'m>(&'m self, token: &Awaited<'_>, room: &'m mut Room) -> Option<Answer<'m>> {
        self.uncounted(token, None::<&Requirement>, room)
    }

    /// Many answers, in their order. `each` is given an answer's place, and `None` if the database must be asked for
    /// that one.
    pub fn verify_many<A, T>(&self, questions: &[Question<'_, A, T>], mut each: impl FnMut(usize, Option<&Answer<'_>>))
    where
        A: Borrow<str>,
        T: OwningTeams,
    {
        let (mut counts, mut room, mut awaited) = (ByOutcome::default(), Room::default(), [NO_TOKEN; TOGETHER]);
        for (number, questions) in questions.chunks(TOGETHER).enumerate() {
            self.recall.send_for_all(questions, &mut awaited);
            for (i, (token, question)) in awaited.iter().zip(questions).enumerate() {
                let answer = self.uncounted(token, question.requirement, &mut room);
                if let Some(answer) = &answer {
                    counts[answer.outcome as usize] += 1;
                }
                each(number * TOGETHER + i, answer.as_ref());
            }
        }
        self.verifier().counters().many_from_memory(&counts);
    }

    /// A token that was verified before, by its digest.
    pub(super) fn verify_again<'m>(&'m self, digest: &HashedToken, room: &'m mut Room) -> Option<Answer<'m>> {
        let spot = self.recall.tables.find(digest, room).filter(|_| self.serves(room))?;
        let answer = self.judged(spot.cached(room), None::<&Requirement>);
        self.verifier().counters().answered_from_memory(answer.outcome);
        Some(answer)
    }

    /// As [`Verifier::still_good`].
    #[must_use]
    pub fn still_good(&self, entry: &Entry) -> bool {
        self.verifier().still_good_at(self.basis, entry)
    }

    #[inline]
    fn verifier(&self) -> &Verifier {
        self.recall.verifier
    }

    #[inline]
    fn uncounted<'m>(
        &'m self,
        token: &Awaited<'_>,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
        room: &'m mut Room,
    ) -> Option<Answer<'m>> {
        let Some(parsed) = token.formed.and_then(FormedToken::checked) else {
            return Some(self.verifier().malformed());
        };
        match self.recall.tables.find(&token.digest, room) {
            Some(spot) if self.serves(room) => Some(self.judged(spot.cached(room), requirement)),
            _ => self.answer_otherwise(&parsed, &token.digest, requirement, room),
        }
    }

    /// A token that is not served under the first pepper: under another, or known to be unknown.
    #[cold]
    fn answer_otherwise<'m>(
        &'m self,
        parsed: &ParsedToken<'_>,
        first: &HashedToken,
        requirement: Option<&Requirement<impl Borrow<str>, impl OwningTeams>>,
        room: &'m mut Room,
    ) -> Option<Answer<'m>> {
        for pepper in &self.verifier().peppers[1..] {
            if let Some(spot) = self.recall.tables.find(&parsed.hash(pepper), room)
                && self.serves(room)
            {
                return Some(self.judged(spot.cached(room), requirement));
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
    fn serves(&self, found: &Room) -> bool {
        let (buckets, revision) = found.covered();
        let serves = self.verifier().replica.fences.serves(buckets, revision);
        if !serves {
            Counters::bump(&self.verifier().counters().fence_refusals);
        }
        serves
    }

    /// A cached token that the fences let pass.
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
