//! Reads the messages of requests within bounds, and builds the bodies of responses.

pub(super) mod body;
pub(super) mod collect;
pub(super) mod discard;
pub(super) mod fields;
pub(super) mod frame;
pub(super) mod messages;
