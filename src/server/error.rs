//! Why a server does not start, or does not go on. The messages say what to do about it.

use std::net::SocketAddr;

use crate::app::error::StoreError;

/// Why the server does not start. Says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be reached, or refuses.
    #[error(
        "the database {address} cannot be used: check database_url, and that PostgreSQL runs and lets this role in"
    )]
    Database {
        /// Its address, secrets redacted.
        address: String,
        /// Why not.
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
        /// The role.
        role: String,
        /// What it can do.
        what: String,
    },
    /// A pepper is not the one that the database knows under its id.
    #[error("{0}")]
    Pepper(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: if another program has the port, stop it or choose another port")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no threads to serve on.
    #[error("the {count} threads to serve on cannot be started: set serving_threads lower, or allow more")]
    Threads {
        /// How many there were to be.
        count: usize,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The log's head was not read in time.
    #[error("the log could not be read in time; check the database")]
    NotFollowing,
}

/// A part of a server ended that should have gone on: a bug, and the server is to be stopped.
#[derive(Debug, thiserror::Error)]
#[error("a part of the server ended by itself: this is a bug, the log has the details")]
pub struct TaskEnded;
