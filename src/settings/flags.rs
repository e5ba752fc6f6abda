//! Offers the settings as command-line flags, for any command to flatten: `#[command(flatten)] flags: settings::Flags`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::setting::{Fallback, Setting};
use super::table::{SETTINGS, named};

/// Holds the settings given on the command line: texts, not yet checked.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--config FILE`.
    pub config_file: Option<PathBuf>,
    pub(super) values: BTreeMap<&'static str, String>,
}

const CONFIG: &str = "config";
const HEADING: &str = "Settings";

/// The flags' names, in the order of the table: clap needs them for as long as the program runs.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| SETTINGS.iter().map(Setting::flag).collect());

impl Flags {
    /// Adds a flag, as if it had been given on the command line. For `latchkey dev` and for tests.
    ///
    /// # Panics
    /// If there is no such setting.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.values.insert(named(key).key, value.into());
        self
    }
}

/// Builds a clap argument for every setting, and `--config`.
fn arguments() -> impl Iterator<Item = Arg> {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help("TOML file to read settings from [env: LATCHKEY_CONFIG]")
        .help_heading(HEADING);
    std::iter::once(config).chain(SETTINGS.iter().zip(NAMES.iter()).map(|(setting, name)| flag(setting, name)))
}

fn flag(setting: &'static Setting, name: &'static str) -> Arg {
    let default = match setting.fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(_) | Fallback::Chosen { .. } => format!("default: {}", setting.default_shown()),
    };
    // Other users of the machine can read a command line, and it stays in the shell's history.
    let warning = if setting.secret {
        " As a flag it is visible in the process list: prefer the file or the variable."
    } else {
        ""
    };
    Arg::new(setting.key)
        .long(name)
        .value_name(setting.value_name)
        .value_parser(ValueParser::string())
        .action(ArgAction::Set)
        .help(format!("{}.{warning} [{default}] [env: {}]", setting.doc_with_range(), setting.variable()))
        .help_heading(HEADING)
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(arguments())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(file) = matches.get_one::<PathBuf>(CONFIG) {
            self.config_file = Some(file.clone());
        }
        for setting in SETTINGS {
            if let Some(value) = matches.get_one::<String>(setting.key) {
                self.values.insert(setting.key, value.clone());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    /// Names only: a value may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags")
            .field("config_file", &self.config_file)
            .field("given", &self.values.keys())
            .finish_non_exhaustive()
    }
}
