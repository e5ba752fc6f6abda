//! Whose call may ask the database next.

pub(super) mod shares;
pub(super) mod turns;
