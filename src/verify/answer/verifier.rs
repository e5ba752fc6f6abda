//! The verifier, which every request asks. It composes the other files and holds the answer rule (V1):
//!
//! *an answer leaves only if (the lease is valid and its revision is at or above the fences now) or its
//! query was sent, to the primary, after the request arrived.*
//!
//! A replica that was given a `stale_max` holds to the same rule with a longer lease, whose last part
//! marks its answers: revocations wait for all of it, and nothing cached is served beyond.
//!
//! It knows nothing of gRPC, SQL and telemetry.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::verification::{Answer, Basis, NotApplied, Verification, VerifyError};
use crate::{
    domain::{
        log::revision::{Revision, RevisionStamp},
        permissions::{catalogue::Catalogue, permission::Bit},
        time::Timestamp,
        token::{HashedToken, ParsedToken, Pepper},
        verification::{Outcome, Requirement},
    },
    verify::{
        cache::{cached::LookupBuffer, entry::Entry, entry_cache::EntryCache},
        clock::Clock,
        counters::Counters,
        limits::VerifyLimits,
        miss::{
            loader::{LoadError, Loaded, Loader, Misses},
            refresh::Refreshes,
        },
        primary::{Primary, Unavailable},
        replica::{
            follower::Follower,
            membership::ReplicaIdentity,
            state::{FollowerState, Replica},
        },
        usage::{LateToken, Used},
    },
};

/// The hot path of a replica.
pub struct Verifier {
    pub(crate) replica: Arc<Replica>,
    pub(crate) loader: Arc<Loader>,
    misses: Misses,
    pub(crate) peppers: Vec<Pepper>,
    refreshes: Refreshes,
}

// === impl Verifier ===

impl Verifier {
    /// Creates a verifier, and the follower that must be run for it to remember anything.
    ///
    /// The first pepper is the one that mints; tokens verify under all of them (T2).
    ///
    /// # Panics
    /// Without any pepper.
    #[must_use]
    pub fn new(
        primary: Arc<dyn Primary>,
        clock: Arc<dyn Clock>,
        peppers: Vec<Pepper>,
        limits: VerifyLimits,
        identity: ReplicaIdentity,
    ) -> (Self, Follower) {
        assert!(!peppers.is_empty(), "no token verifies without a pepper (T2)");
        let replica = Arc::new(Replica::new(primary, clock, limits));
        let loader = Arc::new(Loader::new(replica.clone()));
        let pepper_ids = peppers.iter().map(|pepper| pepper.id().to_owned()).collect();
        let follower = Follower::new(replica.clone(), identity, pepper_ids);
        let misses = Misses::new(loader.clone());
        (Self { replica, loader, misses, peppers, refreshes: Refreshes::default() }, follower)
    }

    /// Answers from memory, to keep. `None` if the database must be asked.
    #[must_use]
    pub fn cached(&self, token: &[u8], requirement: Option<&Requirement>) -> Option<Verification> {
        let reader = self.cache_reader();
        let pending = reader.prefetch(token);
        let Some(memory) = reader.now() else {
            // Text without a token's form needs no memory.
            return ParsedToken::parse(token).is_none().then(|| self.counted(self.malformed()));
        };
        if let Some(answer) = memory.answer(&pending, requirement, &mut LookupBuffer::default()) {
            return Some(answer.to_verification());
        }
        let parsed = ParsedToken::parse(token)?;
        self.peppers.iter().find_map(|pepper| self.ended(&parsed.hash(pepper)))
    }

    /// Answers about a token that is known to have ended. Whether that may be answered is decided as for any other
    /// token: lease, clock and applied revision first, then the entry, then the fences.
    fn ended(&self, digest: &HashedToken) -> Option<Verification> {
        let basis = self.basis()?;
        let entry = self.loader.ended.get(digest)?;
        if !self.replica.fences.serves(entry.buckets(), entry.revision()) {
            Counters::bump(&self.counters().fence_refusals);
            return None;
        }
        let Basis { revision, now, stale } = basis.at_least(entry.revision());
        let outcome = entry.facts().outcome(now, None);
        if outcome == Outcome::Valid {
            // It had ended by a database time that is later than the estimate now. What it holds is not kept here.
            return None;
        }
        self.mark(&*entry, outcome, now);
        if stale {
            Counters::bump(&self.counters().stale);
        }
        self.counters().answered_from_memory(outcome);
        Some(Verification { outcome, revision: revision.revision(), stale, entry: Some(entry) })
    }

    /// Answers from memory or from the database.
    ///
    /// # Errors
    /// [`VerifyError`] if neither knows: never an outcome (V2).
    pub async fn verify(&self, token: &[u8], requirement: Option<&Requirement>) -> Result<Verification, VerifyError> {
        if let Some(answer) = self.cached(token, requirement) {
            return Ok(answer);
        }
        let parsed = ParsedToken::parse(token).expect("what is no token was answered");
        let digests: Vec<_> = self.peppers.iter().map(|pepper| parsed.hash(pepper)).collect();
        self.ask_counted(&digests, requirement).await
    }

    /// Verifies again the token that an entry was read for: for a caller whose entry stands no more.
    ///
    /// # Errors
    /// [`VerifyError`] if neither memory nor the database knows: never an outcome (V2).
    pub async fn verify_again(&self, entry: &Entry) -> Result<Verification, VerifyError> {
        let from_memory =
            || Some(self.memory()?.verify_again(entry.digest(), &mut LookupBuffer::default())?.to_verification());
        match from_memory().or_else(|| self.ended(entry.digest())) {
            Some(answer) => Ok(answer),
            None => self.ask_counted(&[*entry.digest()], None).await,
        }
    }

    fn counted(&self, answer: Answer<'_>) -> Verification {
        self.counters().answered_from_memory(answer.outcome());
        answer.to_verification()
    }

    /// Reports whether an entry that a caller was let in with would still let it in: for each message of a stream.
    /// Counts as a use. If false, verify the token again before turning the caller away.
    #[must_use]
    pub fn still_good(&self, entry: &Entry) -> bool {
        self.basis().is_some_and(|basis| self.still_good_at(basis, entry))
    }

    pub(super) fn still_good_at(&self, basis: Basis, entry: &Entry) -> bool {
        let stands = self.stands_at(basis, entry);
        if stands {
            self.loader.marks.used(entry, basis.now, self.counters());
        }
        stands
    }

    /// Checks as [`Self::still_good`] does, without counting a use: for a stream on which nothing is asked.
    #[must_use]
    pub fn stands(&self, entry: &Entry) -> bool {
        self.basis().is_some_and(|basis| self.stands_at(basis, entry))
    }

    fn stands_at(&self, basis: Basis, entry: &Entry) -> bool {
        self.replica.fences.serves(entry.buckets(), entry.revision())
            && entry.facts().outcome(basis.now, None) == Outcome::Valid
    }

    /// Subscribes to advances of the applied revision; `None` before the first.
    #[must_use]
    pub fn applied_changes(&self) -> watch::Receiver<Option<Revision>> {
        self.replica.applied.subscribe()
    }

    /// Waits until this replica has applied a revision: `min_revision`, or a mutation of its own.
    ///
    /// # Errors
    /// [`NotApplied`] after `wait`.
    pub async fn await_revision(&self, revision: Revision, wait: Duration) -> Result<(), NotApplied> {
        if self.await_applied(revision, Instant::now() + wait).await { Ok(()) } else { Err(NotApplied { revision }) }
    }

    /// Does as [`Self::await_revision`], until a deadline; false if that comes first.
    pub async fn await_applied(&self, revision: Revision, deadline: Instant) -> bool {
        if self.applied().is_some_and(|applied| applied >= revision) {
            return true;
        }
        self.nudge();
        self.replica.applied.reached(revision, deadline).await
    }

    /// Waits until this replica has applied an event by number, in whatever epoch it follows; false if the
    /// deadline comes first.
    pub async fn await_number(&self, number: i64, deadline: Instant) -> bool {
        self.nudge();
        self.replica.applied.await_number(number, deadline).await
    }

    /// Wakes the follower, because the log has grown.
    pub fn nudge(&self) {
        self.replica.wake.notify_one();
    }

    /// Returns what wakes the follower, for the listener to the database's notifications.
    #[must_use]
    pub fn wake(&self) -> Arc<Notify> {
        self.replica.wake.clone()
    }

    /// Returns the applied revision; `None` before the log's head was first read.
    #[must_use]
    pub fn applied(&self) -> Option<Revision> {
        self.replica.applied.stamp().map(RevisionStamp::revision)
    }

    /// Returns where the follower stands.
    #[must_use]
    pub fn follower_state(&self) -> FollowerState {
        self.replica.state()
    }

    /// Reports whether this replica holds its lease.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.basis().is_some_and(|basis| !basis.stale)
    }

    /// Reports whether this replica answers from memory: with its lease, or marked as stale for a while after.
    #[must_use]
    pub fn in_service(&self) -> bool {
        self.basis().is_some()
    }

    /// Returns the database's time as estimated now (V3); `None` before it was first read.
    #[must_use]
    pub fn database_time(&self) -> Option<Timestamp> {
        self.replica.database_clock.at(self.replica.clock.boot_micros())
    }

    /// Returns the catalogue as last read.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.replica.catalogue()
    }

    /// Returns the bit of a permission that the catalogue, as last read, knows by name.
    #[must_use]
    pub fn known_bit(&self, name: &str) -> Option<Bit> {
        self.replica.known_bit(name)
    }

    /// Reads the catalogue again, because the cached copy lacks a permission that a request names.
    ///
    /// # Errors
    /// [`Unavailable`]: then it is not known whether there is such a permission.
    pub async fn refresh_catalogue(&self) -> Result<Arc<Catalogue>, Unavailable> {
        self.refreshes.refresh(&self.replica).await?;
        Ok(self.replica.catalogue())
    }

    /// Takes the uses that wait to be written (K9), one a token, sorted by digest.
    #[must_use]
    pub fn drain_used(&self) -> Vec<Used> {
        let tables = self.loader.cache.tables();
        self.loader.marks.drain_used(|digest| Some(tables.get(digest, &mut LookupBuffer::default())?.last_used()))
    }

    /// Takes the presentations of ended tokens that wait to be recorded (K8).
    #[must_use]
    pub fn drain_late(&self) -> Vec<LateToken> {
        self.loader.marks.drain_late()
    }

    /// Returns what was counted, for telemetry.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.loader.counters
    }

    /// Returns what is remembered of tokens, for telemetry.
    #[must_use]
    pub fn cache(&self) -> &EntryCache {
        &self.loader.cache
    }

    async fn ask_counted(
        &self,
        digests: &[HashedToken],
        requirement: Option<&Requirement>,
    ) -> Result<Verification, VerifyError> {
        let answer = self.ask(digests, requirement).await;
        match answer {
            Err(VerifyError::Unavailable) => Counters::bump(&self.counters().unavailable),
            Err(VerifyError::Overloaded) => Counters::bump(&self.counters().overloaded),
            Ok(_) => {}
        }
        answer
    }

    async fn ask(
        &self,
        digests: &[HashedToken],
        requirement: Option<&Requirement>,
    ) -> Result<Verification, VerifyError> {
        let settle = |loaded: &Loaded| {
            // A query sent after the request arrived answers for its own snapshot, and claims no more than that.
            let fresh = || Some(Basis { revision: loaded.revision, now: self.database_time()?, stale: false });
            self.served(loaded).or_else(|| if loaded.fresh { fresh() } else { None })
        };
        let (loaded, basis) = self.misses.load(digests, settle).await.map_err(|error| match error {
            LoadError::Unavailable => VerifyError::Unavailable,
            LoadError::Overloaded => VerifyError::Overloaded,
        })?;
        // Another history may have been found, or accepted, while this one was read.
        if !self.replica.follows(loaded.revision) {
            return Err(VerifyError::Unavailable);
        }
        Ok(match loaded.entry {
            Some(entry) => self.read(entry, basis, requirement),
            None => {
                self.counters().answered_by_database(Outcome::Unknown);
                Answer::unknown(basis).to_verification()
            }
        })
    }

    /// Returns what to answer with if a load may be served from memory, as if it were a hit. Only under the lease:
    /// a caller that has waited for the database anyway asks it rather than take what may be stale.
    fn served(&self, loaded: &Loaded) -> Option<Basis> {
        let basis = self.basis().filter(|basis| !basis.stale)?;
        let fences = &self.replica.fences;
        let serves = match &loaded.entry {
            Some(entry) => fences.serves(entry.buckets(), loaded.revision),
            None => fences.serves_absence(loaded.revision),
        };
        (loaded.followed && serves).then(|| basis.at_least(loaded.revision))
    }

    /// Judges what the database said of a token.
    fn read(&self, entry: Arc<Entry>, basis: Basis, requirement: Option<&Requirement>) -> Verification {
        let Basis { revision, now, stale } = basis;
        let outcome = entry.facts().outcome(now, requirement);
        // Marks the copy that is kept, if there is one: marks on this entry would be lost with it.
        match self.loader.cache.tables().get(entry.digest(), &mut LookupBuffer::default()) {
            Some(cached) => self.mark(&cached, outcome, now),
            None => self.mark(&*self.loader.ended.get(entry.digest()).unwrap_or(entry.clone()), outcome, now),
        }
        self.counters().answered_by_database(outcome);
        Verification { outcome, revision: revision.revision(), stale, entry: Some(entry) }
    }
}

#[cfg(test)]
#[path = "tests/verifier.rs"]
mod tests;
