//! The hot path of one replica: is this token good *right now*?
//!
//! It knows the rules (`domain`) and a port to the database ([`primary::Primary`]), nothing of gRPC, SQL,
//! configuration or telemetry.
//!
//! # The life of a verification
//!
//! 1. What has a token's form is hashed, and its entry is prefetched: nothing of it is read yet, but among millions of
//!    entries it is hardly ever in the processor's caches ([`CacheReader`]). A request of one token does so before the
//!    next step, which takes place meanwhile; a request of many does so after it, some tokens at a time.
//! 2. The lease is loaded, then the clock is read, then the applied revision: per request and per stream
//!    message, after its bytes have arrived. Without a token's form or the right checksum it is MALFORMED (T1).
//! 3. Its digest, under each pepper, is looked up in the [`cache`]. A candidate that every [`fence`] covering it lets
//!    pass is judged at the [`deadline`](replica::deadline)'s estimate of database time, and that is the answer
//!    ([`Memory`]). No lock, no database, no allocation.
//! 4. Else the `negative` digests are looked up, under their own fence, and the `ended` tokens under theirs.
//! 5. Else, and always without a lease, the database decides: one query for all that ask (`flight`), whose result is
//!    judged again by each request that waited (`miss`, [`verifier`](answer::verifier)). A flood of tokens that are not
//!    on record, or have ended, is turned away before it (`admission`).
//! 6. A VALID answer marks the use (K9), a ROTATED one the late presentation (K8): [`usage`].
//!
//! Beside it the [`follower`](replica::follower) applies the log: it raises fences, advances
//! [`applied`](replica::applied), keeps time, acknowledges how far it is and renews the [`lease`](replica::lease)
//! ([`membership`](replica::membership)).
//!
//! # The invariants, and where each is kept
//!
//! - **V1**, no VALID on authority whose withdrawal was answered complete before the request was sent: the answer rule
//!   in [`verifier`](answer::verifier); fences rise before `applied` does in [`follower`](replica::follower); which
//!   event raises which fence in [`covers`](fence::covers); a flight leaves the table before its result is published,
//!   in `flight`; this process is waited for before it answers, and as long as it does, in
//!   [`follower`](replica::follower) and [`membership`](replica::membership).
//! - **V2**, a fault may deny or fail, never allow: an error is neither remembered nor taken for absence in
//!   `miss`; a history that is not the one followed ends all answers in [`follower`](replica::follower),
//!   detected in `divergence`; an event that cannot be read raises every fence in [`covers`](fence::covers).
//! - **V3**, deadlines are never late, and early by at most one round trip: [`deadline`](replica::deadline).
//! - **V4**, no token verifies that was not minted: only a digest that the database had on record becomes an
//!   [`entry`](cache::entry); nothing else is looked up.
//!
//! # Deliberately absent
//!
//! - *Removing entries.* Invalidation is a fence; an entry leaves the cache by being replaced or evicted.
//! - *Time to live.* A deadline is judged at each answer, and freshness is the lease's.
//! - *A filter of known digests.* It could be wrong, and must never answer UNKNOWN alone.
//! - *The barrier.* It is `app`'s: a mutation that withdraws authority waits for the rows of `replicas`; this module
//!   only keeps the row of its own process ([`membership`](replica::membership)) true.

pub mod answer;
pub mod cache;
pub mod clock;
pub mod counters;
#[cfg(test)]
mod fake;
pub mod fence;
pub mod limits;
pub(crate) mod miss;
mod planted;
pub mod primary;
pub mod replica;
pub mod usage;

pub use answer::look_up::{CacheReader, Memory, PendingLookup, Question};
pub use answer::verification::{Answer, NotApplied, Verification, VerifyError};
pub use answer::verifier::Verifier;
pub use cache::cached::{Cached, LookupBuffer};
pub use cache::entry::Entry;
pub use cache::interned::{Level, NamedSet};
pub use counters::Counters;
pub use limits::VerifyLimits;
pub use replica::follower::Follower;
pub use replica::membership::{RandomIncarnations, ReplicaIdentity};
pub use replica::state::FollowerState;
pub use usage::{LATE_TOKENS_MAX, LateToken, USED_MARKS_MAX, Used};
