//! Keeps what the database has said of tokens, so that a verification needs no database.

pub mod cached;
pub mod entry;
pub mod entry_cache;
pub(super) mod index;
pub(super) mod interned;
pub(super) mod last_use;
pub(super) mod naming;
pub(super) mod slot;
pub(super) mod table;
pub(super) mod tables;
