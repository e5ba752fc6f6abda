//! Asks the database for what memory cannot answer, once for all that ask.

pub(super) mod admission;
pub(super) mod flight;
pub(super) mod loader;
pub(super) mod refresh;
