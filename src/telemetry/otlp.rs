//! Exports traces and metrics over OTLP/gRPC.

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing_subscriber::{Layer, Registry};

use super::{error::InitError, metrics::Metrics, sampling::EarlySampling};

const NAME: &str = "latchkey";
/// Longest that [`TelemetryGuard::shutdown`](super::TelemetryGuard::shutdown) waits for a collector.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Says what is exported, and where to.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Where spans go.
    pub traces: OtlpTarget,
    /// Where metrics go.
    pub metrics: OtlpTarget,
}

/// Says where one kind of telemetry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtlpTarget {
    /// Nowhere.
    Off,
    /// Where the standard `OTEL_…` variables say.
    Environment,
    /// To this `http://host:port`.
    Endpoint(String),
}

/// Running exporters, and the thread whose runtime does their work.
#[derive(Debug)]
pub(super) struct Exporters {
    traces: Option<SdkTracerProvider>,
    sampling: EarlySampling,
    metrics: Option<SdkMeterProvider>,
    thread: ExportThread,
}

// === impl Otlp ===

impl Otlp {
    /// Exports nothing.
    pub fn off() -> Self {
        Self { traces: OtlpTarget::Off, metrics: OtlpTarget::Off }
    }

    /// Exports everything to one collector.
    pub fn to(endpoint: impl Into<String>) -> Self {
        let target = OtlpTarget::Endpoint(endpoint.into());
        Self { traces: target.clone(), metrics: target }
    }

    /// Reads the process's variables: a kind of telemetry is exported if `OTEL_EXPORTER_OTLP_ENDPOINT` or its own
    /// `OTEL_EXPORTER_OTLP_{TRACES,METRICS}_ENDPOINT` is set, unless `OTEL_{TRACES,METRICS}_EXPORTER` is `none` or
    /// `OTEL_SDK_DISABLED` is `true`.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.trim().is_empty());
        let is = |name: &str, word: &str| variable(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word));
        let target = |kind: &str| {
            let named = is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set(&format!("OTEL_EXPORTER_OTLP_{kind}_ENDPOINT"));
            let declined = is("OTEL_SDK_DISABLED", "true") || is(&format!("OTEL_{kind}_EXPORTER"), "none");
            if named && !declined { OtlpTarget::Environment } else { OtlpTarget::Off }
        };
        Self { traces: target("TRACES"), metrics: target("METRICS") }
    }
}

// === impl Exporters ===

impl Exporters {
    /// Starts the exporters; `None` if nothing is to be exported.
    pub(super) fn start(otlp: &Otlp, metrics: &Arc<Metrics>) -> Result<Option<Self>, InitError> {
        if otlp.traces == OtlpTarget::Off && otlp.metrics == OtlpTarget::Off {
            return Ok(None);
        }
        let thread = ExportThread::start()?;
        // The exporters' connections are driven by the runtime that is current when they are built.
        let entered = thread.handle.enter();
        let sampling = EarlySampling::from_environment();
        let traces = tracer_provider(&otlp.traces, &sampling)?;
        let meters = meter_provider(&otlp.metrics)?;
        drop(entered);
        if let Some(meters) = &meters {
            metrics.export(&meters.meter(NAME));
        }
        Ok(Some(Self { traces, sampling, metrics: meters, thread }))
    }

    /// Returns the layer that exports this crate's spans.
    pub(super) fn trace_layer(&self) -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
        let tracer = self.traces.as_ref()?.tracer(NAME);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // Nothing here reads OpenTelemetry's own current context, and attaching it costs at every enter.
            .with_context_activation(false);
        Some(layer.with_filter(self.sampling.clone()).boxed())
    }

    /// Exports the rest and stops. May take as long as a collector is slow: the caller sets the bound.
    pub(super) async fn shutdown(self) {
        let Self { traces, metrics, thread, .. } = self;
        let traces = on_a_thread(move || traces.map(|traces| traces.shutdown_with_timeout(SHUTDOWN_TIMEOUT)));
        let metrics = on_a_thread(move || metrics.map(|metrics| metrics.shutdown_with_timeout(SHUTDOWN_TIMEOUT)));
        // A lost sender means that there was no thread to be had: nothing more can be done about it.
        let _ = traces.await;
        let _ = metrics.await;
        drop(thread);
    }
}

fn tracer_provider(target: &OtlpTarget, sampling: &EarlySampling) -> Result<Option<SdkTracerProvider>, InitError> {
    let builder = SpanExporter::builder().with_tonic();
    let exporter = match target {
        OtlpTarget::Off => return Ok(None),
        OtlpTarget::Environment => builder.build()?,
        OtlpTarget::Endpoint(endpoint) => builder.with_endpoint(endpoint).build()?,
    };
    let builder = SdkTracerProvider::builder().with_resource(resource()).with_sampler(sampling.clone());
    Ok(Some(builder.with_batch_exporter(exporter).build()))
}

fn meter_provider(target: &OtlpTarget) -> Result<Option<SdkMeterProvider>, InitError> {
    let builder = MetricExporter::builder().with_tonic();
    let exporter = match target {
        OtlpTarget::Off => return Ok(None),
        OtlpTarget::Environment => builder.build()?,
        OtlpTarget::Endpoint(endpoint) => builder.with_endpoint(endpoint).build()?,
    };
    Ok(Some(SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(exporter).build()))
}

/// Describes this process: `service.name` is ours unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` says
/// otherwise.
fn resource() -> Resource {
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let detected = Resource::builder().build();
    let name = detected.get(&opentelemetry::Key::from_static_str("service.name")).map(|name| name.to_string());
    let builder = Resource::builder().with_attribute(version);
    match name {
        Some(name) if !name.starts_with("unknown_service") => builder.build(),
        _ => builder.with_service_name(NAME).build(),
    }
}

/// A thread with a single-threaded runtime. It ends when this is dropped, and is not joined.
#[derive(Debug)]
struct ExportThread {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl ExportThread {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // Ends with an error when the sender is dropped, which is the signal.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        thread::Builder::new().name("telemetry".to_owned()).spawn(run)?;
        Ok(Self { handle, _stop: stop })
    }
}

/// Runs blocking work on a thread of its own, which unlike a runtime's blocking task cannot delay the process's exit.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, receiver) = oneshot::channel();
    let run = move || drop(done.send(work()));
    // If no thread can be had, the sender is dropped with the closure and the receiver learns of it.
    drop(thread::Builder::new().name("telemetry-flush".to_owned()).spawn(run));
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> (bool, bool) {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let otlp = Otlp::from_variables(find);
        (otlp.traces != OtlpTarget::Off, otlp.metrics != OtlpTarget::Off)
    }

    #[test]
    fn export_is_on_where_an_endpoint_is_named_and_not_declined() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        assert_eq!(from(&[]), (false, false));
        assert_eq!(from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), (false, false));
        assert_eq!(from(&[endpoint]), (true, true));
        assert_eq!(from(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), (false, false));
        assert_eq!(from(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]), (true, false));
        assert_eq!(from(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4317")]), (true, false));
    }

    #[test]
    fn a_shutdown_is_bounded_without_an_answer() {
        // A listener that accepts by its backlog alone and never speaks.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let log = super::super::LogOptions::to_stderr(crate::settings::LogFormat::Json, "off");
        let (dispatch, guard) = super::super::build(log, &Otlp::to(endpoint), &Arc::new(Metrics::new())).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            drop(tracing::info_span!(target: "latchkey", "lost").entered())
        });
        #[expect(clippy::disallowed_methods, reason = "the test is about how long it takes")]
        let before = std::time::Instant::now();
        runtime.block_on(guard.shutdown());
        drop(runtime);
        assert!(before.elapsed() < 2 * SHUTDOWN_TIMEOUT, "{:?}", before.elapsed());
        // The last clone of the provider would wait for the SDK's own time limit when dropped.
        std::mem::forget(dispatch);
    }
}
