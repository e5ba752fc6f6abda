//! The threads that serve.

pub(super) mod bulk;
pub(super) mod serving;
