//! Whose call may ask the database next.

pub(super) mod fair_queue;
pub(super) mod reading;
pub(super) mod shares;
