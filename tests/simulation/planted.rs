//! The simulation's test of itself: each of the mistakes that the server can be told to make is found.

use crate::{
    cluster::Postgres,
    op::{Fault, Op, history},
    runner,
};

/// Seeds until a mistake must have been found.
const SEEDS_MAX: u64 = 12;
const LENGTH: usize = 40;

async fn is_found(bug: &'static str) {
    let mut postgres = Postgres::start().await;
    for seed in 1..=SEEDS_MAX {
        let ops = if seed == 1 { hard() } else { history(seed, LENGTH) };
        let report = runner::run(&mut postgres, seed, &ops, Some(bug)).await;
        if let Some(violation) = report.violations.first() {
            println!("planted {bug}: found by seed {seed} after operation {}: {violation}", report.operations);
            return;
        }
    }
    panic!("planted {bug}: not found by {SEEDS_MAX} seeds");
}

/// Every way for a replica to fall behind, once.
fn hard() -> Vec<Op> {
    let edits = (0..12).map(|edit| Op::Edit { replica: edit, key: 0, kind: if edit % 2 == 0 { 3 } else { 0 } });
    let mint = Op::Mint { replica: 0, kind: 0 };
    let mut ops = vec![mint, mint, mint, mint, Op::Pass { ms: 300 }];
    ops.extend(edits);
    ops.extend([Op::Flap { replica: 0, key: 3 }, Op::Flap { replica: 1, key: 3 }]);
    ops.extend([
        Op::Fault(Fault::StopReplica(1)),
        Op::Disable { replica: 0, key: 1 },
        Op::Fault(Fault::ContinueReplica(1)),
        Op::Pass { ms: 600 },
        Op::Fault(Fault::HoldToDatabase(2)),
        Op::Delete { replica: 0, key: 2 },
        Op::Pass { ms: 600 },
        Op::Fault(Fault::Heal(2)),
    ]);
    // While it joins again.
    ops.extend([Op::Flap { replica: 0, key: 3 }; 2]);
    ops.extend([Op::Fault(Fault::KillPostgres), Op::Pass { ms: 600 }]);
    ops
}

macro_rules! planted {
    ($($name:ident $bug:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            is_found($bug).await;
        }
    )*};
}

planted! {
    skipping_the_fence_is_found "skip-fence";
    trusting_an_expired_lease_is_found "trust-expired-lease";
    acknowledging_before_applying_is_found "acknowledge-first";
    joining_without_a_fence_is_found "join-without-fence";
    filling_by_two_statements_is_found "two-statement-fill";
    taking_an_error_for_absence_is_found "error-is-absence";
}
