//! Telemetry: logs to standard error, traces and metrics over OTLP.
//!
//! This module knows RPCs by name, status and duration, and nothing of their content. It must never see a token, a
//! request id or a pepper; four things see to that:
//!
//! - [`GrpcLayer`] records no header, metadata or body, with one exception: the ids in a well-formed `traceparent`. An
//!   RPC whose path is not in the [`MethodTable`] is recorded as `_OTHER`, never by its path.
//! - Only spans and events of this crate are exported, and other crates' are logged from INFO up only, whatever the
//!   filter says: below that, HTTP/2 libraries and database drivers print headers and statements.
//! - Token types are never fields. They redact in `Debug` and have no `Display`; what must be mentioned all the same
//!   goes through [`Redacted`].
//! - Names and outcomes given to [`Metrics`] are `&'static str`, so that no value of a request can become a label.

mod grpc_layer;
mod log;
mod methods;
mod metrics;
mod otlp;
mod rpc;
mod sampling;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::dispatcher::WeakDispatch;
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layer, SubscriberExt};

pub use self::grpc_layer::{GrpcLayer, GrpcService, ObservedBody, ResponseFuture};
pub use self::log::logs::{
    LOG_BUFFER_BYTES_MAX, LOG_CALLS_PER_SECOND_MAX, LOG_REPEATS_PER_SECOND_MAX, LogOptions, LogSink,
};
pub use self::methods::{MethodLabel, MethodTable};
pub use self::metrics::{CacheLookup, DroppedRecord, Eviction, LeftOut, Metrics};
pub use self::otlp::{Otlp, OtlpTarget};

use self::log::log_thread::LogThread;
use self::log::logs::Logs;
use self::otlp::Exporters;

/// Longest that [`TelemetryGuard::shutdown`] waits for a collector.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why telemetry cannot start. All are mistakes of configuration; a collector that does not answer is none.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log filter does not parse.
    #[error("the log filter does not parse")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An exporter refuses its endpoint or its `OTEL_…` variables.
    #[error("the OTLP exporter cannot be set up")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The thread that exports, or the one that writes log lines, cannot be started.
    #[error("the threads of telemetry cannot be started")]
    Thread(#[from] std::io::Error),
    /// Somebody has installed a subscriber already.
    #[error("telemetry is already initialised in this process")]
    AlreadyInitialised,
}

/// Keeps telemetry going. Dropping it without [`shutdown`](Self::shutdown) loses what was not exported yet; log lines
/// that wait are written either way, as far as somebody reads them.
#[derive(Debug)]
#[must_use = "telemetry that is not exported yet is lost unless `shutdown` is awaited"]
pub struct TelemetryGuard {
    exporters: Option<Exporters>,
    logs: Logs,
    log_thread: Option<LogThread>,
    subscriber: WeakDispatch,
    /// The exporters observe it weakly: kept until the last export, whoever else lets go of it before.
    _metrics: Arc<Metrics>,
}

/// Starts logs for the process and, where `otlp` says so, the export of traces and of `metrics`.
///
/// Works inside and outside of a tokio runtime: export has a thread and a runtime of its own, so it takes nothing from
/// the runtimes that serve.
///
/// # Errors
/// On mistakes of configuration only; see [`InitError`].
pub fn init(log: LogOptions, otlp: &Otlp, metrics: &Arc<Metrics>) -> Result<TelemetryGuard, InitError> {
    let (dispatch, guard) = build(log, otlp, metrics)?;
    dispatcher::set_global_default(dispatch).map_err(|_| InitError::AlreadyInitialised)?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(guard)
}

/// As [`init`], but gives the subscriber to the caller, who may install it for one thread or future only.
///
/// # Errors
/// As [`init`].
pub fn build(log: LogOptions, otlp: &Otlp, metrics: &Arc<Metrics>) -> Result<(Dispatch, TelemetryGuard), InitError> {
    let (logs, layer) = Logs::new(log, metrics)?;
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![layer];
    let exporters = Exporters::start(otlp, metrics)?;
    layers.extend(exporters.as_ref().and_then(Exporters::trace_layer));
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layers));
    let log_thread = logs.start(&dispatch)?;
    let (subscriber, _metrics) = (dispatch.downgrade(), metrics.clone());
    Ok((dispatch, TelemetryGuard { exporters, logs, log_thread, subscriber, _metrics }))
}

impl TelemetryGuard {
    /// Exports what there is and stops exporting, within [`SHUTDOWN_TIMEOUT`] whether the collector answers or not, and
    /// writes the log lines that wait, within a second whether somebody reads them or not.
    pub async fn shutdown(self) {
        if let Some(subscriber) = self.subscriber.upgrade() {
            self.logs.report_to(&subscriber, true);
        }
        if let Some(exporters) = self.exporters
            && tokio::time::timeout(SHUTDOWN_TIMEOUT, exporters.shutdown()).await.is_err()
        {
            tracing::warn!("the telemetry collector does not answer: the last traces and metrics are lost");
        }
        drop(self.log_thread);
    }
}

/// Something that may be mentioned in a log or an error, but never shown.
///
/// ```
/// # use latchkey::telemetry::Redacted;
/// assert_eq!(format!("{:?} {}", Redacted("a token"), Redacted("a token")), "[redacted] [redacted]");
/// ```
#[derive(Clone, Copy)]
pub struct Redacted<T>(pub T);

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
