//! Log lines.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::{Layer, Registry, fmt};

use super::InitError;
use crate::settings::LogFormat;

/// How and where to log.
#[derive(Debug)]
pub struct LogOptions {
    /// For people or for machines.
    pub format: LogFormat,
    /// Which events, in the syntax of `EnvFilter`.
    pub filter: String,
    /// Where to: standard error, unless a test captures it.
    pub writer: BoxMakeWriter,
    /// Whether pretty lines are coloured.
    pub ansi: bool,
}

impl LogOptions {
    /// Logs to standard error, coloured if that is a terminal.
    pub fn to_stderr(format: LogFormat, filter: impl Into<String>) -> Self {
        let ansi = std::io::stderr().is_terminal();
        Self { format, filter: filter.into(), writer: BoxMakeWriter::new(std::io::stderr), ansi }
    }
}

pub(super) fn layer(options: LogOptions) -> Result<Box<dyn Layer<Registry> + Send + Sync>, InitError> {
    let filter = EnvFilter::builder().parse(&options.filter)?.and(ceiling());
    // A line as each span ends: of a call its method, status and time, which is the access log.
    let layer = fmt::layer().with_writer(options.writer).with_span_events(FmtSpan::CLOSE);
    Ok(match options.format {
        LogFormat::Pretty => layer.with_ansi(options.ansi).with_filter(filter).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(true).with_span_list(false).with_filter(filter).boxed()
        }
    })
}

/// The most that a filter can ask for. Below INFO, h2 and hyper print header values and the database driver prints
/// statements: what an operator turns on for our own code must not turn those on.
fn ceiling() -> Targets {
    Targets::new().with_default(LevelFilter::INFO).with_target("latchkey", LevelFilter::TRACE)
}

/// A log kept in memory.
#[cfg(test)]
pub(super) mod captured {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    pub(in super::super) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// Options to log here, without colour.
        pub(in super::super) fn options(&self, format: LogFormat, filter: &str) -> LogOptions {
            let captured = self.clone();
            let writer = BoxMakeWriter::new(move || captured.clone());
            LogOptions { format, filter: filter.to_owned(), writer, ansi: false }
        }

        /// What was logged so far.
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Metrics, Otlp, Redacted, build};
    use super::captured::Captured;
    use super::*;

    fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let options = captured.options(format, filter);
        let (dispatch, _guard) = build(options, &Otlp::off(), &Arc::new(Metrics::new())).unwrap();
        tracing::dispatcher::with_default(&dispatch, log);
        captured.text()
    }

    #[test]
    fn json_lines_are_one_object_each() {
        let text = logged(LogFormat::Json, "info", || {
            let span = tracing::info_span!("outer", team = "t1");
            let _entered = span.enter();
            tracing::info!(count = 3, "two\nlines");
            tracing::warn!(token = %Redacted("lk_secret"), "second");
            tracing::debug!("too quiet");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[0]["count"], 3);
        assert_eq!(lines[0]["span"]["team"], "t1");
        assert_eq!(lines[1]["level"], "WARN");
        assert_eq!((&lines[2]["message"], &lines[2]["span"]["team"]), (&"close".into(), &"t1".into()));
        assert!(!text.contains("lk_secret"));
    }

    #[test]
    fn pretty_lines_hold_no_escapes_when_nobody_looks() {
        let text = logged(LogFormat::Pretty, "info", || tracing::info!(count = 3, "hello"));
        assert!(text.contains("hello count=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn no_filter_lets_libraries_print_headers() {
        let text = logged(LogFormat::Json, "trace,h2=trace,hyper=debug", || {
            tracing::trace!(target: "h2::codec", "authorization: Bearer lk_secret");
            tracing::debug!(target: "hyper::proto", "authorization: Bearer lk_secret");
            tracing::debug!(target: "tokio_postgres::query", "lk_secret");
            tracing::info!(target: "h2::client", "kept");
            tracing::trace!(target: "latchkey::store", "kept too");
        });
        assert!(!text.contains("lk_secret"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_filter_that_does_not_parse_is_an_error() {
        let options = LogOptions::to_stderr(LogFormat::Json, "a=b=c");
        assert!(matches!(layer(options), Err(InitError::Filter(_))));
    }
}
