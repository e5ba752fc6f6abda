//! Messages of requests, within bounds, and bodies of answers.

pub(super) mod body;
pub(super) mod fields;
pub(super) mod frame;
pub(super) mod gather;
pub(super) mod messages;
pub(super) mod remainder;
