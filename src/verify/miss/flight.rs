//! Single flight: one query for a token at a time, however many ask, and bounded queries in all.
//!
//! It hands over results and judges nothing. What it promises is an order in time, on which the answer
//! rule builds (V1): a flight is gone from the table *before* anyone hears its result. So who has waited
//! for one flight and boards another has boarded one that started after its own request arrived.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{domain::token::HashedToken, verify::cache::entry_cache::BuildDigestHasher};

type Arrivals<T> = watch::Receiver<Option<T>>;

/// The flights under way.
pub(crate) struct Flights<T> {
    under_way: Mutex<HashMap<HashedToken, Arrivals<T>, BuildDigestHasher>>,
    max: usize,
}

/// A place in a flight.
pub(crate) struct Seat<T> {
    arrivals: Arrivals<T>,
    /// Whoever holds it must fly: send the query and land the result.
    pub pilot: Option<Pilot<T>>,
}

/// The duty to end a flight. If it is dropped, the flight ends without a result: a panic, or a runtime
/// that shuts down, strands nobody.
pub(crate) struct Pilot<T> {
    flights: Arc<Flights<T>>,
    digest: HashedToken,
    arrivals: watch::Sender<Option<T>>,
}

/// Too many flights are under way.
#[derive(Debug)]
pub(crate) struct Full;

impl<T: Clone> Flights<T> {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::default(), max })
    }

    /// Joins the flight for a digest, or starts one. A quarter of the flights is kept for tokens that are
    /// known to exist, so that a flood of unknown ones cannot take them all.
    pub fn board(self: &Arc<Self>, digest: HashedToken, known: bool) -> Result<Seat<T>, Full> {
        let mut under_way = self.under_way();
        let count = under_way.len();
        let limit = if known { self.max } else { self.max - self.max / 4 };
        match under_way.entry(digest) {
            hash_map::Entry::Occupied(flight) => Ok(Seat { arrivals: flight.get().clone(), pilot: None }),
            hash_map::Entry::Vacant(_) if count >= limit => Err(Full),
            hash_map::Entry::Vacant(place) => {
                let (sender, arrivals) = watch::channel(None);
                place.insert(arrivals.clone());
                let pilot = Pilot { flights: self.clone(), digest, arrivals: sender };
                Ok(Seat { arrivals, pilot: Some(pilot) })
            }
        }
    }
}

impl<T> Flights<T> {
    fn under_way(&self) -> MutexGuard<'_, HashMap<HashedToken, Arrivals<T>, BuildDigestHasher>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Seat<T> {
    /// The result; `None` if the flight ended without one.
    pub async fn arrive(mut self) -> Option<T> {
        self.arrivals.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl<T> Pilot<T> {
    /// Ends the flight with a result.
    pub fn land(self, result: T) {
        self.flights.under_way().remove(&self.digest);
        self.arrivals.send_replace(Some(result));
    }
}

impl<T> Drop for Pilot<T> {
    fn drop(&mut self) {
        // After a landing another flight of the same digest may be under way: it must stay.
        if self.arrivals.borrow().is_none() {
            self.flights.under_way().remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> HashedToken {
        HashedToken::from_bytes([byte; 32])
    }

    fn pilot(seat: &mut Seat<u32>) -> Pilot<u32> {
        seat.pilot.take().expect("leads")
    }

    #[tokio::test]
    async fn those_who_ask_for_one_token_share_a_query() {
        let flights = Flights::new(8);
        let mut first = flights.board(digest(1), false).expect("room");
        let second = flights.board(digest(1), false).expect("room");
        assert!(second.pilot.is_none());
        pilot(&mut first).land(5);
        assert_eq!((first.arrive().await, second.arrive().await), (Some(5), Some(5)));
    }

    #[tokio::test]
    async fn v1_who_boards_after_an_arrival_boards_a_new_flight() {
        let flights = Flights::new(8);
        let mut first = flights.board(digest(1), false).expect("room");
        pilot(&mut first).land(5);
        assert_eq!(first.arrive().await, Some(5));
        let mut next = flights.board(digest(1), false).expect("room");
        drop(pilot(&mut next));
        assert_eq!(next.arrive().await, None);
    }

    #[tokio::test]
    async fn an_abandoned_flight_strands_nobody() {
        let flights = Flights::new(8);
        let mut first = flights.board(digest(1), false).expect("room");
        let waiting = flights.board(digest(1), false).expect("room");
        drop(pilot(&mut first));
        assert_eq!(waiting.arrive().await, None);
        assert!(flights.board(digest(1), false).expect("room").pilot.is_some());
    }

    #[test]
    fn flights_are_bounded_and_some_are_kept_for_known_tokens() {
        let flights = Flights::<u32>::new(4);
        let seats: Vec<_> = (0..3).map(|i| flights.board(digest(i), false).expect("room")).collect();
        assert!(flights.board(digest(9), false).is_err());
        let known = flights.board(digest(9), true).expect("kept free");
        assert!(flights.board(digest(8), true).is_err());
        // Joining takes no room.
        assert!(flights.board(digest(0), false).is_ok());
        drop((seats, known));
        assert!(flights.board(digest(8), false).is_ok());
    }
}
