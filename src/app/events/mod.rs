//! The log as callers see it: listing, watching, its chain, its history.

pub(super) mod erasure;
pub(super) mod history;
pub(super) mod listing;
pub(super) mod log_position;
pub(super) mod watch;
pub(super) mod watches;
