//! Every bound of the hot path, by name. It does not know how they are configured.

use std::time::Duration;

/// Bounds on memory, concurrency and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyLimits {
    /// Tokens on record kept in memory.
    pub cached_tokens_max: usize,
    /// Bytes of what those share: accounts, teams, sets of permissions and what is written of them. Beyond it, tokens
    /// with long lists of teams leave first.
    pub shared_bytes_max: usize,
    /// Unknown tokens remembered, apart from the known ones so that a flood cannot evict those.
    pub unknown_tokens_max: usize,
    /// Ended tokens remembered, apart from the good ones for the same reason.
    pub ended_tokens_max: usize,
    /// Misses that may ask the database at once; a quarter of them is kept for tokens known to exist.
    pub misses_in_flight_max: usize,
    /// Loads a second that may find no such token, or one that has ended, in the long run; beyond it tokens that memory
    /// does not know are turned away. Each costs the database, and the good tokens beside it, a statement.
    pub unknown_loads_per_second_max: u32,
    /// How many of them may come at once, or as many as misses may be in flight if that is more.
    pub unknown_loads_burst_max: usize,
    /// Loads a second that may find an ended token without counting among those.
    pub ended_loads_per_second_max: u32,
    /// How long a miss may take before the call is UNAVAILABLE.
    pub miss_timeout: Duration,
    /// The lease. The follower's calls time out after a third of it.
    pub lease: Duration,
    /// How much longer than the lease this replica answers from memory, marking each answer as stale. Zero:
    /// then the database decides, or the call is UNAVAILABLE. A revocation waits so much longer for a replica
    /// that is lost, and a token that was revoked meanwhile may be answered VALID for so long.
    pub stale_max: Duration,
    /// How long the follower sleeps unless it is woken.
    pub poll_interval: Duration,
    /// Used tokens that may wait to be written (K9).
    pub used_marks_max: usize,
    /// Presentations of ended tokens that may wait to be recorded (K8).
    pub late_tokens_max: usize,
    /// Presentations of ended tokens that are recorded in an hour (K8).
    pub late_events_per_hour_max: u32,
    /// The most of those that may be of one account's tokens (K8).
    pub late_events_per_account_hour_max: u32,
}
