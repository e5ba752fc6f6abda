//! The commands that work on the database and end, without serving.

pub(super) mod accept_history;
pub(super) mod bootstrap;
pub(super) mod catalogue;
pub(super) mod catalogue_file;
pub(super) mod erase_personal_data;
pub(super) mod migrate;
mod offline;
