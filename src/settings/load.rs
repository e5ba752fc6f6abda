//! Loads the settings: merges the layers, reads every setting, and checks what concerns more than one.

use std::collections::HashMap;

use super::flags::Flags;
use super::layers::merge;
use super::problems::{Problem, Problems};
use super::reader::SettingReader;
use super::table::{Settings, named};
use super::values::{DatabaseUrl, LogSettings};

/// Holds what a command needs that only uses the database, such as `latchkey migrate`.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// As [`Settings::database_url`].
    pub database_url: DatabaseUrl,
    log: LogSettings,
}

/// Reads and checks all settings. `environment` is the process's (see [`process_environment`]), or a test's own.
///
/// Reads the settings file and the files of peppers.
///
/// # Errors
/// Every problem there is, not only the first; none holds a secret.
pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Settings, Problems> {
    read(flags, environment, Settings::read, check_together)
}

/// Reads the settings of a command that uses only the database. Of other settings only the names are checked.
///
/// # Errors
/// As [`load`].
pub fn load_database(
    flags: &Flags,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<DatabaseSettings, Problems> {
    read(flags, environment, DatabaseSettings::read, |_, _| {})
}

/// Returns the process's environment, except what is not Unicode: no setting's value could be.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn read<T>(
    flags: &Flags,
    environment: impl IntoIterator<Item = (String, String)>,
    read: impl FnOnce(&mut SettingReader<'_>) -> Option<T>,
    check: impl FnOnce(&T, &mut Vec<Problem>),
) -> Result<T, Problems> {
    let environment: HashMap<String, String> = environment.into_iter().collect();
    let mut problems = Vec::new();
    let merged = merge(flags, &environment, &mut problems);
    let mut reader = SettingReader::new(&merged, &environment, problems);
    let settings = read(&mut reader);
    let mut problems = reader.into_problems();
    if let Some(settings) = &settings {
        check(settings, &mut problems);
    }
    match Problems::of(problems) {
        Some(problems) => Err(problems),
        None => Ok(settings.expect("a setting that cannot be read leaves a problem")),
    }
}

/// Checks the settings that limit each other.
fn check_together(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut report = |setting: &str, message: String| {
        problems.push(Problem { setting: setting.to_owned(), source: None, message });
    };
    let (account_watches, watches) = (settings.account_watches_max, settings.watches_max);
    if account_watches >= watches {
        report(
            "account_watches_max",
            format!(
                "must be less than watches_max, {watches} (got {account_watches}): otherwise none is reserved for \
                 callers that hold system.events"
            ),
        );
    }
    let (poll_interval, lease) = (settings.poll_interval_ms, settings.lease_ms);
    if poll_interval >= lease {
        report(
            "poll_interval_ms",
            format!(
                "must be less than lease_ms, {lease} (got {poll_interval}): otherwise an idle replica loses its lease \
                 between polls"
            ),
        );
    }
}

// === impl DatabaseSettings ===

impl DatabaseSettings {
    fn read(reader: &mut SettingReader<'_>) -> Option<Self> {
        // All are read before the first `?`, so that every problem is found.
        let database_url = reader.read(named("database_url"));
        let filter = reader.read(named("log_filter"));
        let format = reader.read(named("log_format"));
        let buffer_bytes_max = reader.read(named("log_buffer_bytes_max"));
        let repeats_per_second_max = reader.read(named("log_repeats_per_second_max"));
        let calls_per_second_max = reader.read(named("log_calls_per_second_max"));
        let log = LogSettings {
            format: format?,
            filter: filter?,
            buffer_bytes_max: buffer_bytes_max?,
            repeats_per_second_max: repeats_per_second_max?,
            calls_per_second_max: calls_per_second_max?,
        };
        Some(Self { database_url: database_url?, log })
    }

    /// Returns the settings of the log.
    pub fn log(&self) -> LogSettings {
        self.log.clone()
    }
}
