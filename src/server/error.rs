//! Reports why a server does not start, or does not go on. The messages say what to do about it.

use std::net::SocketAddr;

use crate::app::error::StoreError;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached, or refuses the connection.
    #[error(
        "the database {address} cannot be used: check database_url, and that PostgreSQL is running and accepts this role"
    )]
    Database {
        /// Its address, without secrets.
        address: String,
        /// The cause.
        #[source]
        source: StoreError,
    },
    /// The schema is not the one that this build needs.
    #[error("{0}")]
    Schema(String),
    /// The role of `database_url` can change or delete events.
    #[error(
        "database role `{role}` {what}, so it could change or delete events: let database_url name role latchkey_app, \
         which `latchkey migrate` prepares (README.md, \"On a database of your own\"), or set \
         allow_privileged_database_role"
    )]
    PrivilegedRole {
        /// The role's name.
        role: String,
        /// What it can do.
        what: String,
    },
    /// A pepper differs from the one that the database has under its id, or is missing.
    #[error("{0}")]
    Pepper(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: if another program uses the port, stop it or choose another port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The system refuses the threads to serve on.
    #[error(
        "the {count} serving threads cannot be started: lower serving_threads, or raise the limit on threads and open files"
    )]
    Threads {
        /// The number of threads that were to be started.
        count: usize,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The server did not begin to follow the log in time.
    #[error("the server could not read the log in time: check the database")]
    NotFollowing,
}

/// A task of a server ended although the server was not asked to stop: a bug, and the server has to be stopped.
#[derive(Debug, thiserror::Error)]
#[error("a task of the server ended unexpectedly: this is a bug; the log has the details")]
pub struct TaskEnded;
