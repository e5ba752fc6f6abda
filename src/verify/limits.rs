//! Every bound of the hot path, by name. Where they come from is the configuration's business.

use std::time::Duration;

/// Bounds on memory, concurrency and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens on record kept in memory.
    pub cached_tokens_max: usize,
    /// Bytes of what those share: accounts, teams, sets of permissions and what is written of them. Beyond it, tokens
    /// with long lists of teams leave first.
    pub shared_bytes_max: usize,
    /// Unknown tokens remembered, apart from the known ones so that a flood cannot evict those.
    pub unknown_tokens_max: usize,
    /// Misses that may ask the database at once; a quarter of them is kept for tokens known to exist.
    pub misses_in_flight_max: usize,
    /// Loads a second that may find no such token, in the long run; beyond it tokens unknown to memory are turned
    /// away. Each costs the database, and the good tokens beside it, a statement.
    pub absences_per_second_max: u32,
    /// How many of them may come at once, or as many as misses may be in flight if that is more.
    pub absences_burst_max: usize,
    /// How long a miss may take before the call is UNAVAILABLE.
    pub miss_timeout: Duration,
    /// The lease. The follower's calls time out after a third of it.
    pub lease: Duration,
    /// How much longer than the lease this replica answers from memory, marking each answer as stale. Zero:
    /// then the database decides, or the call is UNAVAILABLE. A revocation waits so much longer for a replica
    /// that is lost, and a token that was revoked meanwhile may be answered VALID for so long.
    pub stale_max: Duration,
    /// How long the follower sleeps if nobody wakes it.
    pub poll_interval: Duration,
    /// Used tokens that may wait to be written (K9).
    pub used_marks_max: usize,
    /// Presentations of ended tokens that may wait to be recorded (K8).
    pub late_tokens_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cached_tokens_max: 1_000_000,
            shared_bytes_max: 256 << 20,
            unknown_tokens_max: 100_000,
            misses_in_flight_max: 256,
            absences_per_second_max: 500,
            absences_burst_max: 2_000,
            miss_timeout: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            stale_max: Duration::ZERO,
            poll_interval: Duration::from_secs(1),
            used_marks_max: 65_536,
            late_tokens_max: 1_024,
        }
    }
}
