//! Parses what requests have in common: metadata, field masks, page tokens.

pub(super) mod field_mask;
pub(super) mod metadata;
pub(super) mod page_token;
