//! Answers verifications: from memory where the answer rule allows it, else by way of the database.

pub(super) mod look_up;
pub(super) mod verification;
pub mod verifier;
