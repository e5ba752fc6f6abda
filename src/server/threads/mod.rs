//! The threads that calls run on.

pub(super) mod bulk;
pub(super) mod serving;
