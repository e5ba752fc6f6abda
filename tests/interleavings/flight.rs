//! Single flight against invalidation: the product's own `src/verify/miss/flight.rs` over loom's locks.

use std::sync::Arc;

use loom::{sync::Mutex, thread};

use crate::{
    holds,
    verify::{
        flight::{Flights, Leader, Unsettled},
        planted::{Bug, plant},
        sync::block_on,
    },
};

const KEY: u8 = 7;

/// The revision that the one key of a model was last changed at, and the flights that read it.
struct Store {
    flights: Arc<Flights<u8, i64>>,
    head: Mutex<i64>,
}

impl Store {
    fn new() -> Arc<Self> {
        Arc::new(Self { flights: Flights::new(4), head: Mutex::new(0) })
    }

    /// `Loader::load`, which reads before it completes.
    fn load(&self, leader: Option<Leader<u8, i64>>) {
        if let Some(leader) = leader {
            let read = *self.head.lock().expect("no panic");
            leader.complete(read);
        }
    }

    /// `Misses::load` for a request that may have everything from `fence` on, and what is fresh.
    fn answer(&self, fence: i64) -> Result<i64, Unsettled> {
        let may_have = |read: &i64, fresh| (fresh || *read >= fence).then_some(*read);
        block_on(self.flights.settle(KEY, false, |leader| self.load(leader), may_have))
    }
}

/// A request that arrived after a revocation was complete, hence with its fence raised, beside one of before.
fn late_request(bug: Option<Bug>) -> bool {
    holds(move || {
        plant(bug);
        let store = Store::new();
        let earlier = thread::spawn({
            let store = store.clone();
            move || {
                plant(bug);
                store.answer(0)
            }
        });
        *store.head.lock().expect("no panic") = 1;
        assert_eq!(store.answer(1), Ok(1), "V1: answered from a query of before the request");
        assert!(earlier.join().expect("no panic").is_ok());
    })
}

#[test]
fn v1_holds_in_every_interleaving_of_flights_and_invalidation() {
    assert!(late_request(None));
}

#[test]
fn a_flight_joined_twice_answers_from_before_the_request() {
    assert!(!late_request(Some(Bug::HearBeforeGone)));
}

#[test]
fn a_waiter_that_does_not_check_again_answers_from_before_the_request() {
    assert!(!late_request(Some(Bug::TrustEveryFlight)));
}

#[test]
fn an_abandoned_flight_strands_no_waiter_in_any_interleaving() {
    plant(None);
    assert!(holds(|| {
        let store = Store::new();
        let (_, leader) = store.flights.join(KEY, false).expect("room");
        let abandoning = thread::spawn(move || drop(leader));
        assert_eq!(store.answer(0), Ok(0), "V1: got nothing");
        abandoning.join().expect("no panic");
        // It took nothing away with it: the table is empty, and has room again.
        assert!(store.flights.join(KEY, false).expect("room").1.is_some(), "V1: a flight that is over is still there");
    }));
}

/// What the models cannot compile: that the callers load before they complete, and judge by freshness.
#[test]
fn the_callers_keep_the_order_that_the_models_assume() {
    let in_order = |source: &str, lines: &[&str]| {
        lines.iter().try_fold(0, |from, line| source[from..].find(line).map(|at| from + at + line.len())).is_some()
    };
    let miss = include_str!("../../src/verify/miss/loader.rs");
    assert!(in_order(miss, &["let loaded = Loaded { fresh, ..loaded.clone() };", "settle(&loaded)"]));
    assert!(in_order(miss, &["fn lead(", "let result = loader.load(&digests).await", "leader.complete(result);"]));
    let refresh = include_str!("../../src/verify/miss/refresh.rs");
    assert!(in_order(refresh, &["leader.complete(read(&replica).await)", "fresh.then("]));
    let looks = include_str!("../../src/app/propagation/replica_poller.rs");
    assert!(in_order(
        looks,
        &["poll.number > ticket.0", "begun.fetch_add", "leader.complete(shared.poll(number).await)"]
    ));
}
