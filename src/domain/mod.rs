//! The rules, pure: no clock, no database, no network, no async.
//!
//! Everything that `proto/RULES.md` numbers (P, K, A, M, T) and that can be decided from values alone is
//! decided here, once. The layers above fetch the values and carry out the decisions.

pub mod api_key;
pub mod authority;
pub mod directory;
pub mod error;
pub mod id;
pub mod log;
pub mod permissions;
pub mod text;
pub mod time;
pub mod token;
pub mod verification;

pub use error::{Error, FieldViolation, ObjectKind};
