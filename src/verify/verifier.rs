//! The verifier: what every request asks. It composes the other files and holds the answer rule (V1):
//!
//! *an answer leaves only if (the lease is valid and its revision is at or above the fences now) or its
//! query was sent, to the primary, after the request arrived.*
//!
//! It knows nothing of gRPC, SQL and telemetry.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{
    clock::Clock,
    counters::Counters,
    entry::Entry,
    follower::Follower,
    limits::Limits,
    miss::{LoadError, Loaded, Loader, Misses},
    primary::{Primary, Unavailable},
    replica::{FollowerState, Replica},
    usage::{LateToken, Marks, Used},
};
use crate::domain::{
    catalogue::Catalogue,
    revision::Revision,
    time::Timestamp,
    token::{HashedToken, ParsedToken, Pepper},
    verification::{Outcome, Requirement},
};

/// Why there is no answer. Never VALID, never UNKNOWN (V2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The database could not be asked, or its history is in doubt.
    #[error("the token could not be checked: the store is unavailable")]
    Unavailable,
    /// Too many tokens are being read at once.
    #[error("the token could not be checked: too many are being read")]
    Overloaded,
}

/// A replica has not applied a revision in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} was not applied in time")]
pub struct NotApplied {
    /// The revision that was waited for.
    pub revision: Revision,
}

/// The answer to a verification.
#[derive(Clone, Debug)]
pub struct Verification {
    outcome: Outcome,
    revision: Revision,
    entry: Option<Arc<Entry>>,
}

/// The hot path of a replica.
pub struct Verifier {
    replica: Arc<Replica>,
    loader: Arc<Loader>,
    misses: Misses,
    marks: Marks,
    peppers: Vec<Pepper>,
}

impl Verification {
    /// What was found.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The revision that the answer reflects, at least.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What is known of the token: its facts, catalogue and digest. `None` if it is MALFORMED or UNKNOWN.
    #[must_use]
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        self.entry.as_ref()
    }
}

// === impl Verifier ===

impl Verifier {
    /// A verifier and the follower that must be run for it to remember anything.
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
        limits: Limits,
    ) -> (Self, Follower) {
        assert!(!peppers.is_empty(), "no token verifies without a pepper (T2)");
        let marks = Marks::new(limits.used_marks_max, limits.late_tokens_max);
        let replica = Arc::new(Replica::new(primary, clock, limits));
        let loader = Arc::new(Loader::new(replica.clone()));
        let follower = Follower::new(replica.clone());
        let misses = Misses::new(loader.clone());
        (Self { replica, loader, misses, marks, peppers }, follower)
    }

    /// Answers from memory: no lock but the cache's, no database, and on a hit no allocation. `None` if
    /// the database must be asked, by [`Verifier::verify`].
    #[must_use]
    pub fn cached(&self, token: &[u8], requirement: Option<&Requirement>) -> Option<Verification> {
        let Some(parsed) = ParsedToken::parse(token) else { return Some(self.malformed()) };
        self.look_up(&parsed, requirement)
    }

    /// Answers from memory or from the database.
    ///
    /// # Errors
    /// [`VerifyError`] if neither knows: never an outcome (V2).
    pub async fn verify(&self, token: &[u8], requirement: Option<&Requirement>) -> Result<Verification, VerifyError> {
        let Some(parsed) = ParsedToken::parse(token) else { return Ok(self.malformed()) };
        if let Some(answer) = self.look_up(&parsed, requirement) {
            return Ok(answer);
        }
        let digests: Vec<_> = self.peppers.iter().map(|pepper| parsed.hash(pepper)).collect();
        self.ask_counted(&digests, requirement).await
    }

    /// Verifies again the token that an entry was read for: for a caller whose entry stands no more.
    ///
    /// # Errors
    /// [`VerifyError`] if neither memory nor the database knows: never an outcome (V2).
    pub async fn verify_again(&self, entry: &Entry) -> Result<Verification, VerifyError> {
        let digest = *entry.digest();
        if let Some((applied, now)) = self.leased()
            && let Some(entry) = self.loader.cache.get(&digest)
            && self.replica.fences.serves(entry.buckets(), entry.revision_number())
        {
            Counters::bump(&self.counters().hits);
            let revision = at_least(applied, entry.revision_number());
            return Ok(self.known(entry, revision, now, None));
        }
        self.ask_counted(&[digest], None).await
    }

    /// True if an entry that a caller was let in with would still let it in: for each message of a stream.
    /// Counts as a use. If false, verify the token again before turning the caller away.
    #[must_use]
    pub fn still_good(&self, entry: &Arc<Entry>) -> bool {
        let stands = self.stands_at(entry);
        if let Some(now) = stands {
            self.marks.used(entry, now, self.counters());
        }
        stands.is_some()
    }

    /// As [`Self::still_good`], but no use: for a stream on which nothing is asked.
    #[must_use]
    pub fn stands(&self, entry: &Entry) -> bool {
        self.stands_at(entry).is_some()
    }

    fn stands_at(&self, entry: &Entry) -> Option<Timestamp> {
        let (_, now) = self.leased()?;
        let good = self.replica.fences.serves(entry.buckets(), entry.revision_number())
            && entry.facts().outcome(now, None) == Outcome::Valid;
        good.then_some(now)
    }

    /// Tells of every advance of the applied revision.
    #[must_use]
    pub fn applied_changes(&self) -> watch::Receiver<i64> {
        self.replica.applied.subscribe()
    }

    /// Waits until this replica has applied a revision: `min_revision`, or a mutation of its own.
    ///
    /// # Errors
    /// [`NotApplied`] after `wait`.
    pub async fn await_revision(&self, revision: Revision, wait: Duration) -> Result<(), NotApplied> {
        let reached = || self.applied().is_some_and(|applied| applied >= revision);
        if reached() {
            return Ok(());
        }
        self.nudge();
        let mut changes = self.replica.applied.subscribe();
        let _in_time = timeout(wait, changes.wait_for(|_| reached())).await;
        if reached() { Ok(()) } else { Err(NotApplied { revision }) }
    }

    /// Waits until this replica has applied an event by number; false if the deadline comes first.
    pub async fn await_number(&self, number: i64, deadline: Instant) -> bool {
        self.nudge();
        self.replica.applied.await_number(number, deadline).await
    }

    /// Wakes the follower, because the log has grown.
    pub fn nudge(&self) {
        self.replica.wake.notify_one();
    }

    /// What wakes the follower: for whoever listens for the database's notifications.
    #[must_use]
    pub fn wake(&self) -> Arc<Notify> {
        self.replica.wake.clone()
    }

    /// The applied revision; `None` before the log's head was first read.
    #[must_use]
    pub fn applied(&self) -> Option<Revision> {
        self.replica.applied.revision()
    }

    /// Where the follower stands.
    #[must_use]
    pub fn follower_state(&self) -> FollowerState {
        self.replica.state()
    }

    /// True while this replica may answer from memory.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.leased().is_some()
    }

    /// The database's time as estimated now (V3); `None` before it was first read.
    #[must_use]
    pub fn database_time(&self) -> Option<Timestamp> {
        self.replica.database_clock.at(self.replica.clock.boot_micros())
    }

    /// The catalogue as last read.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.replica.catalogue()
    }

    /// Reads the catalogue again, because the copy at hand does not know a permission that a request names.
    ///
    /// # Errors
    /// [`Unavailable`]: then nobody knows whether there is such a permission.
    pub async fn refresh_catalogue(&self) -> Result<Arc<Catalogue>, Unavailable> {
        let read = timeout(self.replica.limits.miss_timeout, self.replica.primary.catalogue()).await;
        let catalogue = read.unwrap_or_else(|elapsed| Err(Unavailable(Box::new(elapsed))))?;
        Ok(self.replica.adopt(catalogue))
    }

    /// Takes the uses that wait to be written (K9), one a token, sorted by digest.
    #[must_use]
    pub fn drain_used(&self) -> Vec<Used> {
        self.marks.drain_used()
    }

    /// Takes the presentations of ended tokens that wait to be recorded (K8).
    #[must_use]
    pub fn drain_late(&self) -> Vec<LateToken> {
        self.marks.drain_late()
    }

    /// What was counted, for telemetry.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.loader.counters
    }

    /// The lease, the clock, then `applied`: in this order, before any entry and any fence. `None`
    /// without a lease or without the database's time.
    fn leased(&self) -> Option<(Revision, Timestamp)> {
        let replica = &self.replica;
        let lease = replica.lease.end();
        let boot = replica.clock.boot_micros();
        let applied = replica.applied.revision()?;
        let now = replica.database_clock.at(boot)?;
        lease.valid(boot).then_some((applied, now))
    }

    fn look_up(&self, parsed: &ParsedToken<'_>, requirement: Option<&Requirement>) -> Option<Verification> {
        let counters = self.counters();
        let (applied, now) = self.leased()?;
        let mut first = None;
        for pepper in &self.peppers {
            let digest = parsed.hash(pepper);
            first.get_or_insert(digest);
            let Some(entry) = self.loader.cache.get(&digest) else { continue };
            if self.replica.fences.serves(entry.buckets(), entry.revision_number()) {
                Counters::bump(&counters.hits);
                let revision = at_least(applied, entry.revision_number());
                return Some(self.known(entry, revision, now, requirement));
            }
            Counters::bump(&counters.fence_refusals);
        }
        let absent_at = self.loader.negative.absent_at(&first?)?;
        if self.replica.fences.serves_absence(absent_at) {
            Counters::bump(&counters.negative_hits);
            return Some(self.unknown(at_least(applied, absent_at)));
        }
        Counters::bump(&counters.fence_refusals);
        None
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
            // A query of after the arrival answers for its own snapshot, and claims no more than that.
            let fresh = || Some((loaded.revision, self.database_time()?));
            self.served(loaded).or_else(|| if loaded.fresh { fresh() } else { None })
        };
        let (loaded, (revision, now)) = self.misses.load(digests, settle).await.map_err(|error| match error {
            LoadError::Unavailable => VerifyError::Unavailable,
            LoadError::Overloaded => VerifyError::Overloaded,
        })?;
        if self.replica.state() == FollowerState::Diverged {
            return Err(VerifyError::Unavailable);
        }
        Ok(match loaded.entry {
            Some(entry) => self.known(entry, revision, now, requirement),
            None => self.unknown(revision),
        })
    }

    /// The revision and the time to answer with if a load may be served from memory, as if it were a hit.
    fn served(&self, loaded: &Loaded) -> Option<(Revision, Timestamp)> {
        let (applied, now) = self.leased()?;
        let number = loaded.revision.number;
        let fences = &self.replica.fences;
        let serves = match &loaded.entry {
            Some(entry) => fences.serves(entry.buckets(), number),
            None => fences.serves_absence(number),
        };
        (loaded.followed && serves).then(|| (at_least(applied, number), now))
    }

    fn known(
        &self,
        entry: Arc<Entry>,
        revision: Revision,
        now: Timestamp,
        requirement: Option<&Requirement>,
    ) -> Verification {
        let outcome = entry.facts().outcome(now, requirement);
        match outcome {
            Outcome::Valid => self.marks.used(&entry, now, self.counters()),
            Outcome::Rotated => self.marks.late(&entry, now, self.counters()),
            _ => {}
        }
        self.counters().outcome(outcome);
        Verification { outcome, revision, entry: Some(entry) }
    }

    fn unknown(&self, revision: Revision) -> Verification {
        self.counters().outcome(Outcome::Unknown);
        Verification { outcome: Outcome::Unknown, revision, entry: None }
    }

    fn malformed(&self) -> Verification {
        self.counters().outcome(Outcome::Malformed);
        let revision = self.applied().unwrap_or(Revision { epoch: 0, number: 0 });
        Verification { outcome: Outcome::Malformed, revision, entry: None }
    }
}

/// The applied revision, or the later one that an entry was read at.
fn at_least(applied: Revision, number: i64) -> Revision {
    Revision { epoch: applied.epoch, number: applied.number.max(number) }
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
