//! Single flight against invalidation: a copy of `verify/flight.rs` over loom's locks, held to the original
//! by a test of its lines.

use loom::{
    sync::{Arc, Condvar, Mutex},
    thread,
};

use crate::holds;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// `Pilot::land`: gone from the table before anyone hears the result.
    RemovalFirst,
    /// `Misses::load`: who joined settles by the answer rule.
    TheRecheck,
}

#[derive(Default)]
struct Arrivals {
    result: Mutex<Option<i64>>,
    landed: Condvar,
}

struct Flights {
    under_way: Mutex<Option<Arc<Arrivals>>>,
    head: Mutex<i64>,
}

impl Flights {
    /// `Flights::board`; true if the caller must fly.
    fn board(&self) -> (Arc<Arrivals>, bool) {
        let mut under_way = self.under_way.lock().expect("no panic");
        let pilots = under_way.is_none();
        (under_way.get_or_insert_with(Arc::default).clone(), pilots)
    }

    /// `Loader::load`, then `Pilot::land`.
    fn fly(&self, arrivals: &Arrivals, without: Without) {
        let read = *self.head.lock().expect("no panic");
        if without != Without::RemovalFirst {
            *self.under_way.lock().expect("no panic") = None;
        }
        *arrivals.result.lock().expect("no panic") = Some(read);
        arrivals.landed.notify_all();
        if without == Without::RemovalFirst {
            *self.under_way.lock().expect("no panic") = None;
        }
    }

    /// `Misses::load` of a request that arrived after the revocation was complete, so the fence is at 1.
    fn load(&self, without: Without) -> i64 {
        let mut fresh = false;
        loop {
            let (arrivals, pilots) = self.board();
            if pilots {
                fresh = true;
                self.fly(&arrivals, without);
            }
            let mut result = arrivals.result.lock().expect("no panic");
            while result.is_none() {
                result = arrivals.landed.wait(result).expect("no panic");
            }
            let read = result.expect("landed");
            if fresh || read >= 1 || without == Without::TheRecheck {
                return read;
            }
            fresh = true;
        }
    }
}

fn late_request(without: Without) -> bool {
    holds(move || {
        let flights = Arc::new(Flights { under_way: Mutex::new(None), head: Mutex::new(0) });
        let earlier = thread::spawn({
            let flights = flights.clone();
            move || {
                let (arrivals, pilots) = flights.board();
                if pilots {
                    flights.fly(&arrivals, without);
                }
            }
        });
        *flights.head.lock().expect("no panic") = 1;
        assert_eq!(flights.load(without), 1, "V1: answered from a query of before the request");
        earlier.join().expect("no panic");
    })
}

#[test]
fn v1_holds_in_every_interleaving_of_flights_and_invalidation() {
    assert!(late_request(Without::Nothing));
}

#[test]
fn a_flight_boarded_twice_answers_from_before_the_request() {
    assert!(!late_request(Without::RemovalFirst));
}

#[test]
fn a_waiter_that_does_not_check_again_answers_from_before_the_request() {
    assert!(!late_request(Without::TheRecheck));
}

#[test]
fn the_copy_has_the_originals_order() {
    let (flight, miss) =
        (include_str!("../../src/verify/miss/flight.rs"), include_str!("../../src/verify/miss/loader.rs"));
    let in_order = |source: &str, lines: &[&str]| {
        lines.iter().try_fold(0, |from, line| source[from..].find(line).map(|at| from + at + line.len())).is_some()
    };
    let land = ["pub fn land", "under_way().remove(&self.digest);", "send_replace(Some(result));"];
    assert!(in_order(flight, &land));
    let load = [
        "let mut fresh = false;",
        "self.flights.board(",
        "fresh = true;",
        "self.fly(pilot,",
        "seat.arrive().await",
        "if let Some(settled) = settle(&loaded)",
        "fresh = true;",
    ];
    assert!(in_order(miss, &load));
    // The query is sent and answered before the flight lands.
    assert!(in_order(miss, &["fn fly(", "let landed = loader.load(&digests).await", "pilot.land(landed);"]));
}
