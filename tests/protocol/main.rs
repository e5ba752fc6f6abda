//! The protocol of the design's section 3, explored state by state; see README.md.

mod database;
mod replica;
mod rules;
mod search;
mod state;

use rules::{Bounds, Rule, Rules};
use search::search;

/// Two replicas and no fault but silence: whatever is put off while the clocks go on.
const TWO: Bounds = Bounds {
    replicas: 2,
    crashes: 0,
    losses: 0,
    drift: 0,
    database_crashes: 0,
    database_clock_steps: 0,
    renewals: 0,
    incarnations: 1,
};
const ONE: Bounds = Bounds { replicas: 1, renewals: 1, ..TWO };
const DRIFT: Bounds = Bounds { drift: 2, ..ONE };
const CRASH: Bounds = Bounds { crashes: 1, incarnations: 2, ..ONE };
const REJOIN: Bounds = Bounds { incarnations: 2, ..ONE };
const LOSS: Bounds = Bounds { losses: 1, incarnations: 2, ..ONE };
const DATABASE_CRASH: Bounds = Bounds { database_crashes: 1, ..ONE };
const CLOCK_STEP: Bounds = Bounds { database_clock_steps: 1, ..ONE };
const EVERY_FAULT: Bounds =
    Bounds { crashes: 1, losses: 1, drift: 2, database_crashes: 1, database_clock_steps: 1, incarnations: 2, ..ONE };

fn bounded(name: &str, removed: &[Rule], bounds: Bounds) -> search::Found {
    let found = search(&Rules::without(removed, bounds));
    println!("protocol {name} {found}");
    found
}

macro_rules! v1_holds {
    ($($name:ident: $bounds:expr, $removed:expr;)*) => {$(
        #[test]
        fn $name() {
            let found = bounded(stringify!($name), &$removed, $bounds);
            assert!(found.violation.is_none(), "{found}");
        }
    )*};
}

macro_rules! without {
    ($($name:ident: $bounds:expr, $removed:expr;)*) => {$(
        #[test]
        fn $name() {
            let found = bounded(stringify!($name), &$removed, $bounds);
            assert!(found.violation.is_some(), "V1 holds without {:?}: {found}", $removed);
        }
    )*};
}

v1_holds! {
    v1_holds_for_two_replicas: TWO, [];
    v1_holds_through_drift: DRIFT, [];
    v1_holds_through_a_crash: CRASH, [];
    v1_holds_through_lost_replies: LOSS, [];
    v1_holds_through_a_crash_of_the_database: DATABASE_CRASH, [];
    v1_holds_through_a_step_of_the_databases_clock: CLOCK_STEP, [];
    // A durable eviction keeps what the catch-up keeps, and the other way round: each is there for the other.
    v1_holds_by_durable_evictions_without_catching_up: DATABASE_CRASH, [Rule::CatchUpAfterLapse];
    v1_holds_by_catching_up_when_an_eviction_is_lost: DATABASE_CRASH, [Rule::DurableEviction];
}

without! {
    without_the_fence: ONE, [Rule::Fence];
    without_the_lease_check: ONE, [Rule::LeaseCheck];
    without_the_margin: DRIFT, [Rule::DriftMargin];
    counting_the_lease_from_the_reply: ONE, [Rule::CountFromSend];
    without_the_join_fence: REJOIN, [Rule::JoinFence];
    reading_the_head_before_registering: ONE, [Rule::HeadAfterRegistration];
    without_catching_up_when_an_eviction_is_lost: DATABASE_CRASH, [Rule::CatchUpAfterLapse, Rule::DurableEviction];
    acknowledging_before_the_fence: ONE, [Rule::FenceBeforeAcknowledgement];
    filling_from_two_snapshots: ONE, [Rule::OneSnapshot];
    without_the_waiters_check: ONE, [Rule::WaiterRechecks];
    reading_the_replicas_before_the_commit: ONE, [Rule::RowsAfterCommit];
    with_an_incarnation_used_before: CRASH, [Rule::FreshIncarnation];
    asking_a_standby: ONE, [Rule::PrimaryOnly];
    committing_asynchronously: DATABASE_CRASH, [Rule::SynchronousCommit];
    reading_the_clock_once: ONE, [Rule::ClockPerRequest];
    comparing_the_databases_times: CLOCK_STEP, [Rule::OwnClock];
    evicting_what_has_renewed: ONE, [Rule::EvictIfUnchanged];
}

/// One replica and every fault, then two and one kind of fault at a time: `LATCHKEY_PROTOCOL_LARGE=1`, in a release build; see README.md.
#[test]
fn v1_holds_in_the_larger_space() {
    if std::env::var_os("LATCHKEY_PROTOCOL_LARGE").is_none() {
        return;
    }
    let spaces = [
        ("one, every fault", EVERY_FAULT),
        ("two, database crash", Bounds { database_crashes: 1, ..TWO }),
        ("two, clock step", Bounds { database_clock_steps: 1, ..TWO }),
        ("two, rejoining", Bounds { incarnations: 2, ..TWO }),
        ("two, drift", Bounds { drift: 2, ..TWO }),
        ("two, lost replies", Bounds { losses: 1, ..TWO }),
        ("two, renewals", Bounds { renewals: 1, ..TWO }),
        ("two, crash", Bounds { crashes: 1, incarnations: 2, ..TWO }),
    ];
    for (name, bounds) in spaces {
        let found = bounded(name, &[], bounds);
        assert!(found.violation.is_none(), "{found}");
    }
}
