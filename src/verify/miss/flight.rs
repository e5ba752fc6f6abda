//! Single flight: one load of a key at a time, however many ask for it, and a bounded number of loads in all.
//!
//! It hands over results and judges nothing. What it promises is an order in time, on which the answer rule builds
//! (V1): a flight leaves the table *before* its result is published. So a caller that has waited for one flight and
//! joins another has joined one that started after the caller asked.
//!
//! Three things are loaded this way: tokens ([`super::loader`]), the catalogue ([`super::refresh`]) and the rows of
//! `replicas` (`app::propagation::replica_poller`). The models in `tests/interleavings` compile this file over loom's
//! types, hence its unit tests are a module beside it.

use std::{
    collections::{HashMap, hash_map},
    hash::Hash,
    sync::{Arc, PoisonError},
};

use super::sync::{Mutex, MutexGuard, watch};
use crate::verify::planted::{Bug, planted};

/// How many flights a caller joins: two settle it, and the third is for one that was abandoned.
const FLIGHTS_JOINED_MAX: usize = 3;

type ResultReceiver<T> = watch::Receiver<Option<T>>;

/// The flights under way.
pub(crate) struct Flights<K, T> {
    under_way: Mutex<HashMap<K, ResultReceiver<T>>>,
    max: usize,
}

/// A caller's place in a flight.
pub(crate) struct Waiter<T>(ResultReceiver<T>);

/// The duty to load and to end a flight. If it is dropped, the flight ends without a result: a panic, or a runtime that
/// shuts down, leaves no waiter waiting.
pub(crate) struct Leader<K: Eq + Hash, T> {
    flights: Arc<Flights<K, T>>,
    key: K,
    result: watch::Sender<Option<T>>,
}

/// A caller's place in a flight, and the duty to lead it if it is new.
pub(crate) type Joined<K, T> = (Waiter<T>, Option<Leader<K, T>>);

/// Why a caller got no result that settles its request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsettled {
    /// Too many flights are under way.
    Full,
    /// Each flight that the caller joined was abandoned, or its result was not for the caller.
    Abandoned,
}

// === impl Flights ===

impl<K: Copy + Eq + Hash, T: Clone> Flights<K, T> {
    /// Makes a table for at most `max` flights at a time.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::default(), max })
    }

    /// Joins the flight for a key, or starts one: then the caller is its leader too. A quarter of the flights is kept
    /// for keys that are known to exist, so that a flood of unknown ones cannot take them all.
    ///
    /// # Errors
    /// [`Unsettled::Full`] if there is no flight for the key and no room for another.
    pub fn join(self: &Arc<Self>, key: K, known: bool) -> Result<Joined<K, T>, Unsettled> {
        let mut under_way = self.under_way();
        let count = under_way.len();
        let limit = if known { self.max } else { self.max - self.max / 4 };
        match under_way.entry(key) {
            hash_map::Entry::Occupied(flight) => Ok((Waiter(flight.get().clone()), None)),
            hash_map::Entry::Vacant(_) if count >= limit => Err(Unsettled::Full),
            hash_map::Entry::Vacant(place) => {
                let (sender, receiver) = watch::channel(None);
                place.insert(receiver.clone());
                Ok((Waiter(receiver), Some(Leader { flights: self.clone(), key, result: sender })))
            }
        }
    }

    /// Joins flights for a key until the result of one settles the caller's request.
    ///
    /// `load` is called at each join. A new flight's leader is handed to it, to be completed from a task of its own, so
    /// that a caller that gives up ends the load for no other; `None` means that the caller shares a flight. `settle`
    /// judges each result, and whether it is *fresh*: whether its flight started after this call did. A flight that the
    /// caller leads is fresh. So is every flight after one that was waited for: a flight leaves the table before its
    /// result is published, hence the next one started later. A waiter that may not have a result that is not fresh is
    /// judged again.
    ///
    /// # Errors
    /// See [`Unsettled`].
    pub async fn settle<S>(
        self: &Arc<Self>,
        key: K,
        known: bool,
        load: impl Fn(Option<Leader<K, T>>),
        settle: impl Fn(&T, bool) -> Option<S>,
    ) -> Result<S, Unsettled> {
        let mut fresh = planted(Bug::TrustEveryFlight);
        for _ in 0..FLIGHTS_JOINED_MAX {
            let (waiter, leader) = self.join(key, known)?;
            fresh |= leader.is_some();
            load(leader);
            if let Some(result) = waiter.result().await
                && let Some(settled) = settle(&result, fresh)
            {
                return Ok(settled);
            }
            fresh = true;
        }
        Err(Unsettled::Abandoned)
    }
}

impl<K, T> Flights<K, T> {
    fn under_way(&self) -> MutexGuard<'_, HashMap<K, ResultReceiver<T>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiter ===

impl<T: Clone> Waiter<T> {
    /// Waits for the result; `None` if the flight ended without one.
    pub async fn result(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

// === impl Leader ===

impl<K: Eq + Hash, T> Leader<K, T> {
    /// Ends the flight with a result.
    pub fn complete(self, result: T) {
        if planted(Bug::HearBeforeGone) {
            self.result.send_replace(Some(result));
            self.flights.under_way().remove(&self.key);
            return;
        }
        self.flights.under_way().remove(&self.key);
        self.result.send_replace(Some(result));
    }
}

impl<K: Eq + Hash, T> Drop for Leader<K, T> {
    fn drop(&mut self) {
        // After a completion another flight for the same key may be under way: it must stay.
        if self.result.borrow().is_none() {
            self.flights.under_way().remove(&self.key);
        }
    }
}
