//! Appends and reads events, and what belongs to them: the head, stamps, personal data, the archive.

pub(super) mod anchor;
pub mod archive;
pub mod event_list;
pub mod events;
pub(super) mod personal;
pub mod stamps;
