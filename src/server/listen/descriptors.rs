//! Raises the soft limit on file descriptors to the hard one, and caps connections so that everything else has enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::admission::ConnectionCaps;
use crate::settings::Settings;

/// Descriptors for everything but connections and the database: the listener, standard streams, logs and telemetry,
/// timers, and connections that are accepted only to be closed.
const RESERVE: usize = 64;
/// Descriptors of one thread's runtime.
const PER_THREAD: usize = 4;
/// At least 1/`CONNECTIONS_SHARE_MIN` of all descriptors is left to connections.
const CONNECTIONS_SHARE_MIN: usize = 8;
/// A peer may have 1/`PEER_SHARE` of all connections unless the setting says otherwise: enough for a proxy, which is
/// one peer, while three others like it still find room.
const PEER_SHARE: usize = 4;
/// The least a peer may have by default, where a share would not serve one proxy.
const PEER_MIN: usize = 128;

/// Raises the limit on open files as far as the system allows, and derives the caps on connections.
pub(super) fn divide(settings: &Settings) -> ConnectionCaps {
    let files_max = raise();
    let caps = caps(settings, files_max);
    if caps.total_max < settings.connections_max {
        tracing::info!(
            files_max,
            connections_max = caps.total_max,
            "fewer connections are taken than set, for the limit on open files: raise it (ulimit -n) for more"
        );
    }
    caps
}

fn caps(settings: &Settings, files_max: usize) -> ConnectionCaps {
    let database = [
        settings.database_pool_size_max,
        settings.narrowing_pool_size_max,
        settings.caller_pool_size_max,
        settings.verify_pool_size_max,
        settings.watch_pool_size_max,
        settings.upkeep_pool_size_max,
    ];
    let reserve = RESERVE + database.into_iter().sum::<usize>() + PER_THREAD * settings.serving_threads;
    let left = files_max.saturating_sub(reserve).max(files_max / CONNECTIONS_SHARE_MIN).max(1);
    let total_max = settings.connections_max.min(left);
    let per_peer_max = match settings.connections_per_peer_max {
        0 => (total_max / PEER_SHARE).max(PEER_MIN),
        set => set,
    };
    ConnectionCaps { total_max, per_peer_max: per_peer_max.min(total_max) }
}

/// Raises the limit on open files, and returns it.
fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let hard = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If the system refuses, the limit stays as it was.
    let current = if setrlimit(Resource::Nofile, hard).is_ok() { limit.maximum } else { limit.current };
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Flags};

    fn settings(connections: &str, per_peer: &str) -> Settings {
        let flags = Flags::default()
            .with("database_url", "postgres://u@h/d")
            .with("peppers", "test=env:PEPPER")
            .with("serving_threads", "2")
            .with("connections_max", connections)
            .with("connections_per_peer_max", per_peer);
        settings::load(&flags, [("PEPPER".to_owned(), "0123456789abcdef".repeat(4))]).expect("good settings")
    }

    #[test]
    fn what_the_database_and_the_log_need_is_left_to_them() {
        for (files, connections, per_peer, total_max, per_peer_max) in [
            (1 << 20, "10000", "0", 10_000, 2_500),
            (20_000, "10000", "0", 10_000, 2_500),
            (1_024, "10000", "0", 932, 233),
            (256, "10000", "0", 164, 128),
            (256, "100", "0", 100, 100),
            (256, "10000", "7", 164, 7),
            (64, "10000", "0", 8, 8),
        ] {
            let expected = ConnectionCaps { total_max, per_peer_max };
            assert_eq!(caps(&settings(connections, per_peer), files), expected, "{files} {connections} {per_peer}");
        }
    }

    #[test]
    fn the_soft_limit_is_the_hard_one_afterwards() {
        let files = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(limit.current.is_none_or(|current| current as usize == files));
    }
}
