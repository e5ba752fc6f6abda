//! Starts logs, traces and metrics, and stops them within a bound.

use std::sync::Arc;

use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::dispatcher::WeakDispatch;
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use super::{
    error::InitError,
    log::{
        log_thread::LogThread,
        logs::{LogOptions, Logs},
    },
    metrics::Metrics,
    otlp::{Exporters, Otlp, SHUTDOWN_TIMEOUT},
};

/// Keeps telemetry going. Dropping it without [`shutdown`](Self::shutdown) loses what was not exported yet; log lines
/// that wait are written either way, as far as standard error is read.
#[derive(Debug)]
#[must_use = "telemetry that is not exported yet is lost unless `shutdown` is awaited"]
pub struct TelemetryGuard {
    exporters: Option<Exporters>,
    logs: Logs,
    log_thread: Option<LogThread>,
    subscriber: WeakDispatch,
    /// The exporters hold it weakly: kept here until the last export.
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

/// Does as [`init`], but gives the subscriber to the caller, who may install it for one thread or future only.
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
    /// writes the log lines that wait, within a second whether they are read or not.
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
