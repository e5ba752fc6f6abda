//! Asks the database for what memory cannot answer, once for all that ask.

pub(super) mod admission;
pub(super) mod ended;
pub(crate) mod flight;
#[cfg(test)]
#[path = "tests/flight.rs"]
mod flight_tests;
pub(super) mod loader;
pub(super) mod negative;
pub(super) mod refresh;
mod sync;
