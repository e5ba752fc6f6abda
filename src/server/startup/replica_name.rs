//! Names this process among the replicas, and recognises the names of earlier processes of this machine.

use rustix::{io::Errno, process::Pid};

use crate::verify::{RandomIncarnations, ReplicaIdentity};

/// The most characters that the table of replicas takes.
const REPLICA_NAME_CHARS_MAX: usize = 200;

/// Returns the identity of this process in the table of replicas.
pub(super) fn identity() -> ReplicaIdentity {
    ReplicaIdentity { name: replica_name(std::process::id()), incarnations: Box::new(RandomIncarnations) }
}

/// Returns the name that a process of this machine has among the replicas.
fn replica_name(pid: u32) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{pid}").chars().take(REPLICA_NAME_CHARS_MAX).collect()
}

/// Reports whether a replica's name is that of an ended process of this machine.
pub(super) fn is_dead(name: &str) -> bool {
    let pid = name.rsplit_once('/').and_then(|(_, pid)| pid.parse().ok());
    let process = pid.filter(|pid| name == replica_name(*pid)).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    // This process has no row yet: a row with its name is an earlier process's.
    process.is_some_and(|process| {
        process == rustix::process::getpid() || rustix::process::test_kill_process(process) == Err(Errno::SRCH)
    })
}
