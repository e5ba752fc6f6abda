//! How to start a private PostgreSQL.

use std::path::PathBuf;

use super::binaries::Search;

/// Says what the data is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As PostgreSQL's defaults: what is committed survives a crash.
    Durable,
    /// For tests: fast, and a crash of the machine may destroy the cluster.
    Throwaway,
}

/// Says how to start a [`PrivatePostgres`](super::PrivatePostgres).
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds everything; created if missing.
    pub data_dir: PathBuf,
    /// What the data is worth.
    pub durability: Durability,
    /// Whether to remove what was put into the folder when PostgreSQL stops, and the folder if it is then empty.
    pub remove_on_stop: bool,
    /// PostgreSQL's `max_connections`.
    pub max_connections: u16,
    /// More PostgreSQL settings, name and value. They are visible in the process list, so they must hold no secrets.
    pub settings: Vec<(String, String)>,
    /// Where to look for the server binaries.
    pub search: Search,
}

// === impl Options ===

impl Options {
    /// Keeps the data, in `data_dir`: for `latchkey dev`.
    #[must_use]
    pub fn durable(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Durable,
            remove_on_stop: false,
            max_connections: 100,
            settings: Vec::new(),
            search: Search::this_machine(),
        }
    }

    /// Runs fast, and removes the data with the process: for tests.
    #[must_use]
    pub fn throwaway(data_dir: impl Into<PathBuf>) -> Self {
        Self { durability: Durability::Throwaway, remove_on_stop: true, ..Self::durable(data_dir) }
    }
}
