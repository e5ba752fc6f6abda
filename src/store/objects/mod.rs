//! Reads and writes the objects, a file for each noun.

pub(super) mod accounts;
pub mod api_keys;
pub mod catalogue;
pub mod key_list;
pub mod powers;
pub(super) mod roles;
pub(super) mod secrets;
pub(super) mod teams;
pub(super) mod users;
