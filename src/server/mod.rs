//! Puts the layers together and runs them: database, follower, gRPC, housekeeping, a clean stop.

mod connection;
mod error;
mod incident;
mod lifecycle;
mod listen;
mod observe;
mod running;
mod startup;
mod threads;
mod wire;

pub use error::{StartError, TaskEnded};
pub use running::RunningServer;
pub use startup::{
    open::{OpenedDatabase, open},
    start::{start, start_private},
};
