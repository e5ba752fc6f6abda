//! Loads the settings from a command's flags and this process's environment.

use super::failure::Failure;
use crate::settings::{self, DatabaseSettings, Flags, Settings};

/// Loads all settings.
///
/// # Errors
/// Every problem with them at once.
pub(super) fn load(flags: &Flags) -> Result<Settings, Failure> {
    Ok(settings::load(flags, settings::process_environment())?)
}

/// Loads what a command needs that uses the database and nothing else.
///
/// # Errors
/// As [`load`].
pub(super) fn load_database(flags: &Flags) -> Result<DatabaseSettings, Failure> {
    Ok(settings::load_database(flags, settings::process_environment())?)
}
