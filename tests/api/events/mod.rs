//! V5, V6 and EventService: every change has its event, and the chain verifies.

mod archive;
mod chain;
mod contents;
mod listing;
mod looking;
mod personal;
mod replay;
mod sizes;
