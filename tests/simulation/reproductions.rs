//! Histories that once found something, or that are known to be hard; each is run before the seeds.

use crate::op::{Fault, Op};

pub fn all() -> Vec<(&'static str, Vec<Op>)> {
    vec![
        ("a replica that slept through its eviction and a revocation", slept_through()),
        ("errors of the database while all is well known", database_gone()),
    ]
}

fn slept_through() -> Vec<Op> {
    let mint = Op::Mint { replica: 0, kind: 0 };
    let disable = Op::Disable { replica: 0, key: 0 };
    vec![
        mint,
        Op::Pass { ms: 300 },
        Op::Fault(Fault::StopReplica(1)),
        disable,
        Op::Fault(Fault::ContinueReplica(1)),
        Op::Pass { ms: 600 },
        Op::Await { replica: 0 },
    ]
}

fn database_gone() -> Vec<Op> {
    vec![
        Op::Mint { replica: 0, kind: 0 },
        Op::Mint { replica: 1, kind: 3 },
        Op::Fault(Fault::KillPostgres),
        Op::Fault(Fault::Refuse(1)),
        Op::Pass { ms: 1_200 },
        Op::Fault(Fault::HoldToReplica(0)),
        Op::Delete { replica: 2, key: 1 },
        Op::Pass { ms: 1_200 },
    ]
}
