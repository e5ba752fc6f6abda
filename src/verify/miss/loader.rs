//! Misses: asking the database for a token that memory cannot answer for.
//!
//! A load ends in facts, in absence, or in *not knowing*: an error is never remembered and never taken
//! for absence (V2). Loads run in tasks of their own, so a caller that hangs up strands no other that waits
//! for the same token. What may be answered from a load is for [`crate::verify::answer::verifier`] to judge.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    admission::{LoadAdmission, Permit},
    ended::EndedTokens,
    flight::{Flights, Leader, Unsettled},
    negative::NegativeCache,
};
use crate::{
    domain::{log::revision::RevisionStamp, token::HashedToken},
    error_chain::ErrorChain,
    verify::{
        cache::{entry::Entry, entry_cache::EntryCache, last_use::LastUse},
        counters::Counters,
        planted::{Bug, planted},
        primary::{Fill, Sent, Unavailable},
        replica::state::Replica,
        usage::Marks,
    },
};

/// What one snapshot said of a token.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub revision: RevisionStamp,
    /// The token on record; `None` if there is none.
    pub entry: Option<Arc<Entry>>,
    /// True if that token was good for nothing.
    pub ended: bool,
    /// True if it was read in the history that the follower follows, so that fences can judge it.
    pub followed: bool,
    /// True if its query was sent, to the primary, after this request arrived.
    pub fresh: bool,
}

/// Why a token could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadError {
    Unavailable,
    Overloaded,
}

/// The result of a flight: a snapshot, or why there is none.
type LoadResult = Result<Loaded, LoadError>;

/// Loads tokens from the database, one load of a token at a time.
pub(crate) struct Misses {
    loader: Arc<Loader>,
    flights: Arc<Flights<HashedToken, LoadResult>>,
    admission: Arc<LoadAdmission>,
}

/// What a load needs of the process; shared with the task that runs it.
pub(crate) struct Loader {
    pub replica: Arc<Replica>,
    pub cache: EntryCache,
    pub ended: EndedTokens,
    pub negative: NegativeCache,
    pub counters: Counters,
    pub marks: Marks,
    failing: AtomicBool,
}

impl Misses {
    pub fn new(loader: Arc<Loader>) -> Self {
        let limits = &loader.replica.limits;
        let (flights, admission) = (Flights::new(limits.misses_in_flight_max), LoadAdmission::new(limits));
        Self { loader, flights, admission }
    }

    /// Loads a token for a request that has arrived, alone or together with others.
    ///
    /// `settle` says whether the request may be answered from a load, and with what. A fresh load always
    /// may; if another may not, the next one is fresh ([`Flights::settle`]).
    pub async fn load<S>(
        &self,
        digests: &[HashedToken],
        settle: impl Fn(&Loaded) -> Option<S>,
    ) -> Result<(Loaded, S), LoadError> {
        Counters::bump(&self.loader.counters.misses);
        let known = self.loader.knows_as_good(digests);
        let first = digests.first().expect("there is at least one pepper");
        let lead_or_share = |leader: Option<Leader<_, _>>| match leader {
            Some(leader) => self.lead(leader, digests, known),
            None => Counters::bump(&self.loader.counters.joined_flights),
        };
        let judge = |result: &LoadResult, fresh| match result {
            Ok(loaded) => {
                let loaded = Loaded { fresh, ..loaded.clone() };
                settle(&loaded).map(|settled| Ok((loaded, settled)))
            }
            Err(error) => Some(Err(*error)),
        };
        let settled = self.flights.settle(*first, known, lead_or_share, judge).await;
        settled.unwrap_or_else(|unsettled| {
            Err(match unsettled {
                Unsettled::Full => LoadError::Overloaded,
                Unsettled::Abandoned => LoadError::Unavailable,
            })
        })
    }

    /// Sends the query and completes the flight with its result; if it is not admitted, completes it with that at once.
    fn lead(&self, leader: Leader<HashedToken, LoadResult>, digests: &[HashedToken], known: bool) {
        let permit = if known { None } else { self.admission.enter(&*self.loader.replica.clock) };
        if permit.is_none() && !known {
            return leader.complete(Err(LoadError::Overloaded));
        }
        let (loader, digests) = (self.loader.clone(), digests.to_vec());
        tokio::spawn(async move {
            let result = loader.load(&digests).await.ok_or(LoadError::Unavailable);
            if let (Ok(loaded), Some(permit)) = (&result, permit) {
                loader.settle(permit, loaded);
            }
            leader.complete(result);
        });
    }
}

impl Loader {
    pub fn new(replica: Arc<Replica>) -> Self {
        Self {
            cache: EntryCache::new(replica.limits.cached_tokens_max, replica.limits.shared_bytes_max),
            ended: EndedTokens::new(replica.limits.ended_tokens_max),
            negative: NegativeCache::new(replica.limits.unknown_tokens_max),
            marks: Marks::new(&replica.limits),
            replica,
            counters: Counters::default(),
            failing: AtomicBool::new(false),
        }
    }

    /// Reports whether one of these was a good token when last seen: reading that again costs nothing.
    fn knows_as_good(&self, digests: &[HashedToken]) -> bool {
        let now = self.replica.database_clock.at(self.replica.clock.boot_micros());
        now.is_some_and(|now| digests.iter().any(|digest| self.cache.knows_as_good(digest, now)))
    }

    /// Gives a load back what it paid if it found a good token.
    fn settle(&self, permit: Permit, loaded: &Loaded) {
        let clock = &*self.replica.clock;
        match &loaded.entry {
            None => permit.keep(),
            Some(_) if loaded.ended => {
                Counters::bump(&self.counters.ended_loads);
                permit.keep_for_ended(clock);
            }
            Some(_) => drop(permit),
        }
    }

    async fn load(&self, digests: &[HashedToken]) -> Option<Loaded> {
        let before = self.replica.applied.stamp();
        if self.replica.is_refused() {
            return None;
        }
        let timeout = self.replica.limits.miss_timeout;
        let sent = Sent::new(&*self.replica.clock);
        let asked = tokio::time::timeout(timeout, self.ask(digests, &sent)).await;
        let fill = match asked.unwrap_or_else(|elapsed| Err(Unavailable(Box::new(elapsed)))) {
            Ok(fill) => fill,
            Err(_) if planted(Bug::ErrorIsAbsence) && before.is_some() => {
                return Some(Loaded { revision: before?, entry: None, ended: false, followed: false, fresh: false });
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %ErrorChain(&error), "tokens cannot be read; verifications are UNAVAILABLE");
                }
                return None;
            }
        };
        if fill.token.is_none() && fill.lacks_pepper {
            // No outage, and no absence either. The follower, which gets no lease because of it, logs that.
            return None;
        }
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("tokens can be read again");
        }
        let stamp = fill.revision.stamp();
        let Some(stamp) = stamp.filter(|stamp| continues(before, *stamp) && self.replica.follows(*stamp)) else {
            // History went back, or on in another epoch. The follower finds out which, and logs it.
            self.replica.wake.notify_one();
            return None;
        };
        self.note_time(&sent, &fill);
        Some(self.remember(digests, fill, stamp, before.is_some()))
    }

    async fn ask(&self, digests: &[HashedToken], sent: &Sent<'_>) -> Result<Fill, Unavailable> {
        let fill = self.replica.primary.fill(digests, sent).await?;
        if planted(Bug::TwoStatementFill) {
            tokio::time::sleep(crate::verify::planted::GAP).await;
            return Ok(Fill { revision: self.replica.primary.head(sent).await?.revision, ..fill });
        }
        Ok(fill)
    }

    /// Anchors the estimate of the database's time, while there is no lease: with one, the follower does, and
    /// one more reading could only make deadlines earlier.
    fn note_time(&self, sent: &Sent<'_>, fill: &Fill) {
        let replica = &self.replica;
        let lease = replica.lease.end();
        let boot = replica.clock.boot_micros();
        if !lease.valid(boot) || replica.database_clock.at(boot).is_none() {
            replica.database_clock.anchor(sent.boot_micros(), fill.database_time);
        }
    }

    fn remember(&self, digests: &[HashedToken], fill: Fill, revision: RevisionStamp, followed: bool) -> Loaded {
        let database_time = fill.database_time;
        let entry = fill.token.map(|(digest, facts)| {
            let catalogue = self.replica.adopt(fill.revision.epoch, fill.catalogue);
            Arc::new(Entry::new(digest, facts, catalogue, revision))
        });
        let ended = entry.as_ref().is_some_and(|entry| entry.has_ended(database_time));
        // What was read before the follower started is in no known history: the fences cannot judge it.
        if followed {
            // Before it can be served: every reading of the head from now on must be at or above this.
            self.replica.saw(revision);
            match &entry {
                // In place of itself it evicts nothing; anywhere else it might.
                Some(entry) if ended && self.cache.replace(entry) => {}
                Some(entry) if ended => self.ended.insert(entry),
                Some(entry) => self.cache.insert(entry, LastUse::before(database_time, self.marks.round())),
                None => self.negative.insert(*digests.first().expect("there is at least one pepper"), revision),
            }
        }
        Loaded { revision, entry, ended, followed, fresh: false }
    }
}

/// Reports whether a fill continues the history that had been applied before its query was sent.
fn continues(before: Option<RevisionStamp>, fill: RevisionStamp) -> bool {
    before.is_none_or(|before| fill >= before && fill.revision().epoch == before.revision().epoch)
}
