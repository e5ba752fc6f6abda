//! The small value types: token prefix, log format, log filter.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::num::NonZero;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use super::table::{Parse, Setting};

/// The prefix of newly minted tokens (T1): 2–12 characters of `[a-z0-9]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPrefix(String);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one coloured line per event.
    Pretty,
    /// For machines: one JSON object per line.
    Json,
}

/// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`, known to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// How many processors this process may use, in digits: 1 if the system does not say.
pub(super) fn processors() -> &'static str {
    static PROCESSORS: OnceLock<String> = OnceLock::new();
    PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get).min(1_024).to_string())
}

// === impl TokenPrefix ===

impl TokenPrefix {
    /// The prefix, without the underscore that follows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Parse for TokenPrefix {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let right_length = (2..=12).contains(&text.len());
        if right_length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        Err(vec![format!("must be 2 to 12 characters of a-z and 0-9 (got {text:?})")])
    }

    fn shown(&self) -> String {
        self.0.clone()
    }
}

// === impl LogFormat ===

impl LogFormat {
    /// The default's name: pretty when somebody is likely to be looking.
    pub(super) fn for_this_process() -> &'static str {
        if std::io::stderr().is_terminal() { "pretty" } else { "json" }
    }
}

impl Parse for LogFormat {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        match text.trim() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(vec![format!("must be `pretty` or `json` (got {text:?})")]),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Pretty => "pretty".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// The filter's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Parse for LogFilter {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => {
                Err(vec![format!("must be a log filter such as `info,latchkey=debug` (got {text:?}): {error}")])
            }
        }
    }

    fn shown(&self) -> String {
        self.0.clone()
    }
}
