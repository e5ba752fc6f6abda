//! How to log: format, filter and limits.

use std::collections::HashMap;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::setting::{Parse, Setting};

/// Says how log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one coloured line per event.
    Pretty,
    /// For machines: one JSON object per line.
    Json,
}

/// Says which events are logged, in the syntax of `tracing_subscriber::EnvFilter`, known to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// Says how to log: the settings that every command has.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The setting `log_format`.
    pub format: LogFormat,
    /// The setting `log_filter`.
    pub filter: LogFilter,
    /// The setting `log_buffer_bytes_max`.
    pub buffer_bytes_max: usize,
    /// The setting `log_repeats_per_second_max`.
    pub repeats_per_second_max: u32,
    /// The setting `log_calls_per_second_max`.
    pub calls_per_second_max: u32,
}

// === impl LogFormat ===

impl LogFormat {
    /// Names the default format: pretty if a person is likely to be reading, that is, on a terminal.
    pub(in super::super) fn for_this_process() -> &'static str {
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
    /// Returns the filter's text.
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
