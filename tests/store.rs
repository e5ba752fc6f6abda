//! The store on a real PostgreSQL: what it stores, what it refuses, how it fails.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "store/constraints.rs"]
mod constraints;
#[path = "store/costs.rs"]
mod costs;
#[path = "store/costs_writes.rs"]
mod costs_writes;
#[path = "store/database.rs"]
mod database;
#[path = "store/directory.rs"]
mod directory;
#[path = "store/explained.rs"]
mod explained;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/fixtures.rs"]
mod fixtures;
#[path = "store/golden.rs"]
mod golden;
#[path = "store/history.rs"]
mod history;
#[path = "store/keys.rs"]
mod keys;
#[path = "store/log.rs"]
mod log;
#[path = "store/migrations.rs"]
mod migrations;
#[path = "store/peppers.rs"]
mod peppers;
#[path = "store/plans.rs"]
mod plans;
#[path = "store/powers.rs"]
mod powers;
#[path = "store/replicas.rs"]
mod replicas;
#[path = "store/statements.rs"]
mod statements;
mod support;
