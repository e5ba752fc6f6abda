//! The rules, one test after another, through gRPC on a real PostgreSQL.
//!
//! A file a letter of the rules; each test is named after what it shows, the allowed and the refused side.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail a test where they stand, as tests do")]

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod bad_input;
mod break_glass;
mod connections;
mod coverage;
mod directory;
mod errors;
mod events;
mod fair_shares;
mod gate;
mod keys;
mod permissions;
mod principals;
mod propagation;
mod replicas;
mod restored;
mod tokens;
mod verification;
mod waits;
mod watch;

use support::calls::acme as calls;
