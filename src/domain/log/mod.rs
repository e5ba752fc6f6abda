//! The log: events, their encoding and chain, revisions, anchors (V5, V6).

pub mod archive;
pub mod event;
pub(super) mod event_parts;
pub mod personal;
pub mod revision;
