//! Describes a setting: the shape of one line of the table, and how its text becomes a value.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::domain::{Error, token::Prefix};

/// Describes one setting. Parsing, flags, `--help`, `check-config` and the README all read this and nothing else.
#[derive(Debug)]
pub struct Setting {
    /// The name in the file. `LATCHKEY_<KEY>` in the environment and `--<key-with-dashes>` as a flag follow from it.
    pub key: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// The unit or shape of the value, as `--help` prints it.
    pub value_name: &'static str,
    /// The least and the greatest integer accepted, for settings that are integers.
    pub range: Option<(u64, u64)>,
    /// The value if no layer gives one.
    pub fallback: Fallback,
    /// Whether the value may hold a secret: never printed as given, never echoed in a problem.
    pub secret: bool,
}

/// Says what a setting is if no layer gives it.
#[derive(Debug, Clone, Copy)]
pub enum Fallback {
    /// This text, parsed like any other.
    Value(&'static str),
    /// Nothing: the setting must be given.
    Required,
    /// Chosen from the circumstances of the process; the text says how.
    Chosen {
        /// In words, for `--help`.
        how: &'static str,
        /// Chooses it.
        choose: fn() -> &'static str,
    },
}

impl Setting {
    /// Returns the environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("LATCHKEY_{}", self.key.to_ascii_uppercase())
    }

    /// Returns the flag that sets it, without the leading dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Returns the default as documentation shows it.
    pub fn default_shown(&self) -> &'static str {
        match self.fallback {
            Fallback::Value(text) => text,
            Fallback::Required => "required",
            Fallback::Chosen { how, .. } => how,
        }
    }

    /// Returns the doc with its bounds, as `--help` and the README show it.
    pub fn doc_with_range(&self) -> String {
        match self.range {
            None => self.doc.to_owned(),
            Some((min, u64::MAX)) => format!("{} ({min} or more)", self.doc),
            Some((min, max)) => format!("{} ({min} to {max})", self.doc),
        }
    }
}

/// Parses and prints the values of a type that a setting may have.
///
/// An error is a list of messages for people, which never echo the value of a secret setting.
pub(super) trait Parse: Sized {
    /// Reads the text. `environment` is for values that name a variable.
    fn parse(text: &str, setting: &Setting, environment: &HashMap<String, String>) -> Result<Self, Vec<String>>;

    /// Formats the value as `check-config` prints it, secrets redacted.
    fn shown(&self) -> String;
}

impl Parse for u64 {
    fn parse(text: &str, setting: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let (min, max) = setting.range.unwrap_or((0, u64::MAX));
        match text.trim().parse::<u64>() {
            Ok(value) if value < min => Err(vec![format!("must be at least {min} (got {value})")]),
            Ok(value) if value > max => Err(vec![format!("must be at most {max} (got {value})")]),
            Ok(value) => Ok(value),
            Err(_) => Err(vec![format!("must be a whole number (got {text:?})")]),
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Parse for usize {
    fn parse(text: &str, setting: &Setting, environment: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let value = u64::parse(text, setting, environment)?;
        usize::try_from(value).map_err(|_| vec![format!("must be at most {} (got {value})", Self::MAX)])
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Parse for u32 {
    fn parse(text: &str, setting: &Setting, environment: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let value = u64::parse(text, setting, environment)?;
        Self::try_from(value).map_err(|_| vec![format!("must be at most {} (got {value})", Self::MAX)])
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Parse for bool {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        text.trim().parse().map_err(|_| vec![format!("must be `true` or `false` (got {text:?})")])
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Parse for Prefix {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        Prefix::parse("token_prefix", text).map_err(|error| match error {
            Error::Invalid(violations) => violations.into_iter().map(|violation| violation.description).collect(),
            other => vec![other.to_string()],
        })
    }

    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Parse for SocketAddr {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let wrong =
            || vec![format!("must be an IP address and port, such as 127.0.0.1:50051 or [::]:50051 (got {text:?})")];
        text.trim().parse().map_err(|_| wrong())
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}
