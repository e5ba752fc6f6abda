//! VerifyToken and its siblings: what the answers say, and when they may no longer say it.

mod answers;
mod batches;
mod fast_path;
mod flood;
mod races;
mod read_your_writes;
mod requirements;
mod revisions;
mod streams;
