//! Keeps this process one of the replicas that mutations wait for: follower, lease, membership and clocks.

pub mod applied;
pub mod deadline;
pub(super) mod divergence;
pub mod follower;
pub mod lease;
pub mod membership;
pub(super) mod state;
