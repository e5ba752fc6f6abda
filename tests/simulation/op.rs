//! What happens in a simulated history: operations and faults, and the generator that a seed drives.

use crate::support::random::Random;

/// One step of a history. Numbers pick among what there is, modulo; a replica is a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Mint {
        replica: usize,
        kind: usize,
    },
    /// Sets the account-level permissions to one of a few sets: wider or narrower.
    Edit {
        replica: usize,
        key: usize,
        kind: usize,
    },
    /// Widens and narrows a key, twice in a row, while everybody asks.
    Flap {
        replica: usize,
        key: usize,
    },
    Disable {
        replica: usize,
        key: usize,
    },
    Enable {
        replica: usize,
        key: usize,
    },
    /// Grace in seconds.
    Rotate {
        replica: usize,
        key: usize,
        grace_s: u8,
    },
    Delete {
        replica: usize,
        key: usize,
    },
    /// The token itself ends its key.
    Revoke {
        replica: usize,
        key: usize,
    },
    Suspend {
        replica: usize,
    },
    Resume {
        replica: usize,
    },
    DeleteTeam {
        replica: usize,
        team: usize,
    },
    RestoreTeam {
        replica: usize,
        team: usize,
    },
    /// The catalogue takes away, or gives back, what a permission grants.
    Retire {
        replica: usize,
        retired: bool,
    },
    /// A service loses its key while its stream is open.
    RevokeCaller {
        replica: usize,
    },
    Await {
        replica: usize,
    },
    /// An operator starts a new epoch.
    AcceptHistory,
    Pass {
        ms: u16,
    },
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    KillReplica(usize),
    StopReplica(usize),
    ContinueReplica(usize),
    /// A clean end.
    LeaveReplica(usize),
    JoinReplica(usize),
    KillPostgres,
    RestartPostgres,
    /// All of its processes stand still so long.
    StopPostgres(u16),
    CutListeners(usize),
    CutConnections(usize),
    Refuse(usize),
    Delay(usize, u16),
    HoldToDatabase(usize),
    HoldToReplica(usize),
    Heal(usize),
}

impl Fault {
    /// What ends it, if it does not end by itself.
    fn cure(self) -> Option<Self> {
        Some(match self {
            Self::KillReplica(slot) | Self::LeaveReplica(slot) => Self::JoinReplica(slot),
            Self::StopReplica(slot) => Self::ContinueReplica(slot),
            Self::Refuse(slot) | Self::Delay(slot, _) | Self::HoldToDatabase(slot) | Self::HoldToReplica(slot) => {
                Self::Heal(slot)
            }
            _ => return None,
        })
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::KillReplica(_) => "kill_replica",
            Self::StopReplica(_) => "stop_replica",
            Self::ContinueReplica(_) => "continue_replica",
            Self::LeaveReplica(_) => "leave_replica",
            Self::JoinReplica(_) => "join_replica",
            Self::KillPostgres => "kill_postgres",
            Self::RestartPostgres => "restart_postgres",
            Self::StopPostgres(_) => "stop_postgres",
            Self::CutListeners(_) => "cut_listeners",
            Self::CutConnections(_) => "cut_connections",
            Self::Refuse(_) => "refuse_connections",
            Self::Delay(..) => "delay",
            Self::HoldToDatabase(_) => "hold_to_database",
            Self::HoldToReplica(_) => "hold_to_replica",
            Self::Heal(_) => "heal",
        }
    }
}

/// How many slots for replicas there are.
pub const REPLICAS: usize = 3;

/// No fault lasts for longer than so many operations: who is ill for ever finds nothing more.
const ILL_MAX: usize = 7;

/// The history of a seed.
pub fn history(seed: u64, length: usize) -> Vec<Op> {
    let mut dice = Random::new(seed);
    let mut ops: Vec<Op> = (0..4).map(|kind| Op::Mint { replica: kind % REPLICAS, kind }).collect();
    let mut cures: Vec<(usize, Fault)> = Vec::new();
    let end = ops.len() + length;
    while ops.len() < end {
        let due = cures.iter().position(|(place, _)| *place <= ops.len());
        let op = match due {
            Some(due) => Op::Fault(cures.swap_remove(due).1),
            None if dice.below(3) == 0 => Op::Fault(fault(&mut dice)),
            None => step(&mut dice),
        };
        if let Op::Fault(fault) = op {
            cures.extend(fault.cure().map(|cure| (ops.len() + 1 + dice.below(ILL_MAX), cure)));
        }
        ops.push(op);
    }
    ops
}

fn step(dice: &mut Random) -> Op {
    let (replica, key) = (dice.below(REPLICAS), dice.below(8));
    match dice.below(24) {
        0..=3 => Op::Mint { replica, kind: dice.below(6) },
        4..=7 => Op::Edit { replica, key, kind: dice.below(6) },
        8 => Op::Flap { replica, key },
        9 | 10 => Op::Disable { replica, key },
        11 => Op::Enable { replica, key },
        12..=14 => Op::Rotate { replica, key, grace_s: [0, 0, 2, 60][dice.below(4)] },
        15 => Op::Delete { replica, key },
        16 => Op::Revoke { replica, key },
        17 => Op::Suspend { replica },
        18 => Op::Resume { replica },
        19 => Op::DeleteTeam { replica, team: dice.below(3) },
        20 => Op::RestoreTeam { replica, team: dice.below(3) },
        21 => Op::Retire { replica, retired: dice.below(2) == 0 },
        22 => Op::RevokeCaller { replica },
        _ if dice.below(2) == 0 => Op::Await { replica },
        _ if dice.below(6) == 0 => Op::AcceptHistory,
        _ => Op::Pass { ms: 300 + 300 * dice.below(3) as u16 },
    }
}

fn fault(dice: &mut Random) -> Fault {
    let replica = dice.below(REPLICAS);
    match dice.below(22) {
        0 | 1 => Fault::KillReplica(replica),
        2..=5 => Fault::StopReplica(replica),
        6 | 7 => Fault::LeaveReplica(replica),
        8 => Fault::KillReplica(replica),
        9..=11 => Fault::CutListeners(replica),
        12 => Fault::KillPostgres,
        13 => Fault::RestartPostgres,
        14 => Fault::StopPostgres(300 + 400 * dice.below(4) as u16),
        15 | 16 => Fault::CutConnections(replica),
        17 => Fault::Refuse(replica),
        18 | 19 => Fault::Delay(replica, 5 + 20 * dice.below(8) as u16),
        20 => Fault::HoldToDatabase(replica),
        _ => Fault::HoldToReplica(replica),
    }
}
