//! Starts a server: opens the database, checks the role, starts the tasks and the threads, and listens.

pub(super) mod limits;
pub(super) mod open;
pub(super) mod replica_name;
pub(super) mod role;
pub(super) mod start;
