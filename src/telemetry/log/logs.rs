//! Formats and filters log lines.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::{Layer, Registry, fmt};

use super::{
    call_lines::CallLines,
    folding::{self, Folding, LeftOutLines},
    log_thread::{LogBuffer, LogThread},
};
use crate::{
    settings::LogFormat,
    telemetry::{
        clock::now,
        error::InitError,
        methods::MethodLabel,
        metrics::{LeftOut, Metrics},
        targets,
    },
};

/// Bytes of lines that may wait to be written, unless a setting says otherwise.
pub const LOG_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Lines a second that say the same, unless a setting says otherwise.
pub const LOG_REPEATS_PER_SECOND_MAX: u32 = 5;
/// Lines a second of calls' ends, unless a setting says otherwise.
pub const LOG_CALLS_PER_SECOND_MAX: u32 = 200;

/// Says how and where to log.
#[derive(Debug)]
pub struct LogOptions {
    /// For people or for machines.
    pub format: LogFormat,
    /// Which events, in the syntax of `EnvFilter`.
    pub filter: String,
    /// Where to.
    pub sink: LogSink,
    /// Whether pretty lines are coloured.
    pub ansi: bool,
    /// Warnings and errors a second of one place in the code with one message; the others are folded into a count. 0:
    /// no folding.
    pub repeats_per_second_max: u32,
    /// Lines a second of calls' ends, beside one of each method; the others are counted. 0: no bound.
    pub calls_per_second_max: u32,
}

pub(crate) type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Says where log lines go.
#[derive(Debug)]
pub enum LogSink {
    /// To standard error, by a thread of its own: logging never waits, and what does not fit is dropped and counted.
    StandardError {
        /// Bytes of lines that may wait to be written.
        buffer_bytes_max: usize,
    },
    /// To where a test keeps them, at once and all.
    Direct(BoxMakeWriter),
}

/// Writes the lines, and reports those that were left out.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    buffer: Option<LogBuffer>,
    folding: Arc<Folding>,
    calls: Arc<CallLines>,
}

/// Reports whether a call that begins is to be logged as it ends, by the process's log.
pub(crate) fn takes_call(label: MethodLabel, now: fn() -> Instant) -> bool {
    log_filter_says(|filter| filter.calls.takes(label, now))
}

/// Reports whether a call that was left out and ended by the server's fault is to be logged after all.
pub(crate) fn takes_fault(label: MethodLabel) -> bool {
    log_filter_says(|filter| filter.calls.takes_fault(label, now()))
}

/// Asks the log's filter; true without one.
fn log_filter_says(say: impl Fn(&LineFilter) -> bool) -> bool {
    dispatcher::get_default(|subscriber| subscriber.downcast_ref().is_none_or(&say))
}

/// Passes what the configured filter names, except the calls' ends beyond the bound and the repetitions that are
/// folded.
struct LineFilter {
    named: EnvFilter,
    ceiling: Targets,
    folding: Arc<Folding>,
    calls: Arc<CallLines>,
    metrics: Arc<Metrics>,
}

// === impl LogOptions ===

impl LogOptions {
    /// Logs to standard error, coloured if that is a terminal.
    pub fn to_stderr(format: LogFormat, filter: impl Into<String>) -> Self {
        Self {
            format,
            filter: filter.into(),
            sink: LogSink::StandardError { buffer_bytes_max: LOG_BUFFER_BYTES_MAX },
            ansi: io::stderr().is_terminal(),
            repeats_per_second_max: LOG_REPEATS_PER_SECOND_MAX,
            calls_per_second_max: LOG_CALLS_PER_SECOND_MAX,
        }
    }

    /// Logs all there is to where a test keeps it, in plain text.
    pub fn captured(format: LogFormat, filter: impl Into<String>, writer: BoxMakeWriter) -> Self {
        let sink = LogSink::Direct(writer);
        Self { format, filter: filter.into(), sink, ansi: false, repeats_per_second_max: 0, calls_per_second_max: 0 }
    }
}

// === impl Logs ===

impl Logs {
    /// Returns the layer that makes lines of events.
    pub(crate) fn new(options: LogOptions, metrics: &Arc<Metrics>) -> Result<(Self, LogLayer), InitError> {
        let folding = Arc::new(Folding::new(options.repeats_per_second_max));
        let named = EnvFilter::builder().parse(&options.filter)?;
        let calls = Arc::new(CallLines::new(options.calls_per_second_max, now(), metrics.clone()));
        let filter = LineFilter {
            named,
            ceiling: ceiling(),
            folding: folding.clone(),
            calls: calls.clone(),
            metrics: metrics.clone(),
        };
        let (buffer, writer) = match options.sink {
            LogSink::Direct(writer) => (None, writer),
            LogSink::StandardError { buffer_bytes_max } => {
                let buffer = LogBuffer::new(buffer_bytes_max, metrics.clone());
                (Some(buffer.clone()), BoxMakeWriter::new(buffer))
            }
        };
        // A line as each span ends: of a call its method, status and time, which is the access log.
        let layer = fmt::layer().with_writer(writer).with_span_events(FmtSpan::CLOSE);
        let layer = match options.format {
            LogFormat::Pretty => layer.with_ansi(options.ansi).with_filter(filter).boxed(),
            LogFormat::Json => layer
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .with_filter(filter)
                .boxed(),
        };
        Ok((Self { buffer, folding, calls }, layer))
    }

    /// Starts the thread that writes them, if they are not written at once.
    pub(crate) fn start(&self, dispatch: &Dispatch) -> Result<Option<LogThread>, InitError> {
        let Some(buffer) = &self.buffer else { return Ok(None) };
        let (logs, subscriber) = (self.clone(), dispatch.downgrade());
        let report = move || {
            if let Some(subscriber) = subscriber.upgrade() {
                logs.report_to(&subscriber, false);
            }
        };
        Ok(Some(LogThread::start(buffer.clone(), io::stderr(), report)?))
    }

    /// Logs how many lines were left out since this was last done: of repeated lines, those that no longer repeat, or,
    /// with `all`, every one.
    pub(crate) fn report_to(&self, subscriber: &Dispatch, all: bool) {
        let dropped = self.buffer.as_ref().map_or(0, LogBuffer::take_dropped);
        let folded = self.folding.take_left_out(now(), all);
        let calls = self.calls.take_left_out();
        if dropped > 0 || calls > 0 || !folded.is_empty() {
            dispatcher::with_default(subscriber, || {
                if dropped > 0 {
                    tracing::warn!(target: folding::TARGET, left_out = dropped, "log lines were dropped: they were not read fast enough");
                }
                if calls > 0 {
                    tracing::info!(target: folding::TARGET, left_out = calls, "lines of calls that ended were left out");
                }
                folded.iter().for_each(report);
            });
        }
    }
}

/// Writes one line for many, at their level: so it passes where they would have.
fn report(left_out: &LeftOutLines) {
    macro_rules! report {
        ($level:expr) => {
            tracing::event!(
                target: folding::TARGET,
                $level,
                left_out = left_out.count,
                of = left_out.message,
                module = left_out.module,
                line = left_out.line,
                "log lines that repeat themselves were left out"
            )
        };
    }
    match left_out.level {
        Level::ERROR => report!(Level::ERROR),
        Level::WARN => report!(Level::WARN),
        _ => report!(Level::INFO),
    }
}

// === impl LineFilter ===

impl LineFilter {
    fn is_report(metadata: &Metadata<'_>) -> bool {
        metadata.target() == folding::TARGET
    }
}

/// Everything but `event_enabled` delegates to the configured filter, which follows spans too.
impl<S: Subscriber> Filter<S> for LineFilter
where
    EnvFilter: Filter<S>,
    Targets: Filter<S>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        let named = || Filter::<S>::enabled(&self.named, metadata, context);
        let enabled = Self::is_report(metadata) || (Filter::<S>::enabled(&self.ceiling, metadata, context) && named());
        if enabled && targets::is_unlogged(metadata) {
            self.calls.leave_out();
            return false;
        }
        enabled
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::is_report(metadata) {
            return Interest::always();
        }
        // Asked either way: it keeps what it is asked of spans.
        let named = Filter::<S>::callsite_enabled(&self.named, metadata);
        let below = Filter::<S>::callsite_enabled(&self.ceiling, metadata);
        match (below.is_never() || named.is_never(), metadata.is_event() || targets::is_unlogged(metadata)) {
            (true, _) => Interest::never(),
            // What `event_enabled` may refuse has to be asked about each time: the registry takes it to be so. What is
            // left out is counted as it is asked about.
            (false, true) => Interest::sometimes(),
            (false, false) => named,
        }
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let passes = self.folding.passes(event, now());
        if !passes {
            self.metrics.log_lines_left_out(LeftOut::Repeated, 1);
        }
        passes
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let hints = [Filter::<S>::max_level_hint(&self.named), Filter::<S>::max_level_hint(&self.ceiling)];
        hints.into_iter().flatten().min()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::<S>::on_new_span(&self.named, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::<S>::on_record(&self.named, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::<S>::on_enter(&self.named, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::<S>::on_exit(&self.named, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::<S>::on_close(&self.named, id, context);
    }
}

/// Returns the most that a filter can ask for. Below INFO, h2 and hyper print header values and the database driver
/// prints statements: what an operator turns on for our own code must not turn those on.
fn ceiling() -> Targets {
    Targets::new().with_default(LevelFilter::INFO).with_target("latchkey", LevelFilter::TRACE)
}

/// A log kept in memory.
#[cfg(test)]
pub(crate) mod captured {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// Options to log here, without colour.
        pub(crate) fn options(&self, format: LogFormat, filter: &str) -> LogOptions {
            let captured = self.clone();
            LogOptions::captured(format, filter, BoxMakeWriter::new(move || captured.clone()))
        }

        /// Returns what was logged so far.
        pub(crate) fn text(&self) -> String {
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
    use super::captured::Captured;
    use super::*;
    use crate::telemetry::{Otlp, build};

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
            tracing::warn!("second");
            tracing::debug!("too quiet");
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[0]["count"], 3);
        assert_eq!(lines[0]["span"]["team"], "t1");
        assert_eq!(lines[1]["level"], "WARN");
        assert_eq!((&lines[2]["message"], &lines[2]["span"]["team"]), (&"close".into(), &"t1".into()));
    }

    #[test]
    fn pretty_lines_hold_no_escapes_for_a_file() {
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
        assert!(matches!(Logs::new(options, &Arc::default()), Err(InitError::Filter(_))));
    }
}
