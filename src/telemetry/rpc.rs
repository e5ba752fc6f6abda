//! Observes one RPC: its span and its measurements, from the first byte to the last.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use opentelemetry::Context;
use opentelemetry::metrics::BoundHistogram;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    clock::Stopwatch,
    log::logs,
    methods::{MethodLabel, MethodTable},
    metrics::Metrics,
    sampling, targets,
};

const TRACEPARENT_NAME: &str = "traceparent";
const TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_NAME);
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A span per the semantic conventions for RPC: `rpc.method` is the whole name.
macro_rules! span {
    ($target:expr, $label:expr) => {
        if $label.hot {
            span!($target, $label, Level::DEBUG)
        } else {
            span!($target, $label, Level::INFO)
        }
    };
    ($target:expr, $label:expr, $level:expr) => {
        tracing::span!(
            target: $target,
            parent: None,
            $level,
            "rpc",
            otel.name = $label.method,
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.service = $label.service,
            rpc.method = $label.method,
            rpc.response.status_code = Empty,
            otel.status_code = Empty,
            "error.type" = Empty,
        )
    };
}

/// How many gRPC statuses there are, numbered from 0.
const CODES: usize = 17;

/// Observes the RPCs of one core: one for each, so that no two write the same count of holders at every call.
#[derive(Debug)]
pub(super) struct RpcObserver {
    methods: Arc<MethodTable>,
    metrics: Arc<Metrics>,
    /// By method and status, once there was one: where its duration is recorded without a look-up of its labels.
    durations: Vec<[OnceLock<BoundHistogram<f64>>; CODES]>,
    /// Reads the clock.
    clock: fn() -> Instant,
}

/// An RPC in progress. If it is dropped before [`finish`](Self::finish), the RPC never had an end: the client went
/// away, or the server stopped.
#[derive(Debug)]
pub(super) struct Rpc {
    span: Span,
    label: MethodLabel,
    observer: Arc<RpcObserver>,
    stopwatch: Option<Stopwatch>,
    /// Whether its end is within the bound on the log's lines.
    logged: bool,
    finished: bool,
}

// === impl RpcObserver ===

impl RpcObserver {
    pub(super) fn new(methods: Arc<MethodTable>, metrics: Arc<Metrics>, clock: fn() -> Instant) -> Self {
        let durations = (0..methods.labels()).map(|_| Default::default()).collect();
        Self { methods, metrics, durations, clock }
    }

    /// Begins to observe an RPC.
    pub(super) fn start(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Rpc {
        Rpc::start(self.methods.get(path), headers, Arc::clone(self))
    }

    fn ended(&self, label: MethodLabel, code: Code, duration: Duration) {
        let duration_s = duration.as_secs_f64();
        let bound = &self.durations[label.index][code as usize];
        let bind = || self.metrics.rpc_durations(label, code_name(code));
        if let Some(histogram) = bound.get().or_else(|| bind().map(|new| bound.get_or_init(|| new))) {
            histogram.record(duration_s);
        }
    }
}

// === impl Rpc ===

impl Rpc {
    /// Begins to observe. Reads one header only, `traceparent`.
    fn start(label: MethodLabel, headers: &HeaderMap, observer: Arc<RpcObserver>) -> Self {
        let logged = label.hot || logs::takes_call(label, observer.clock);
        let span = span_in_trace(label, headers, logged);
        // Reading the clock is the most expensive step here: only if durations are exported.
        let stopwatch = observer.metrics.is_exported().then(|| Stopwatch::since((observer.clock)()));
        Self { span, label, observer, stopwatch, logged, finished: false }
    }

    /// Returns the span that the RPC's work happens in.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Reads the status that headers or trailers carry. Its message is left alone: it may quote the request.
    pub(super) fn status_in(headers: &HeaderMap) -> Option<Code> {
        headers.get(GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))
    }

    /// Records the end, once.
    pub(super) fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if !self.span.is_disabled() {
            let name = code_name(code);
            self.span.record("rpc.response.status_code", name);
            if is_server_fault(code) {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("error.type", name);
            }
        }
        if !self.logged && is_server_fault(code) {
            log_fault(self.label, code);
        }
        if let Some(stopwatch) = &self.stopwatch {
            self.observer.ended(self.label, code, stopwatch.elapsed());
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        if !self.finished {
            self.observer.metrics.rpc_unfinished(self.label);
            self.finish(Code::Cancelled);
        }
    }
}

/// Logs the end of an RPC that has no span in the log.
fn log_fault(label: MethodLabel, code: Code) {
    if logs::takes_fault(label) {
        tracing::info!(
            target: targets::UNSAMPLED,
            { rpc.method = label.method, rpc.response.status_code = code_name(code) },
            "a call failed whose line was left out"
        );
    }
}

/// Makes the RPC's span, below its caller's if the request names one. A hot method gets one only if the log level is
/// DEBUG or it is traced.
fn span_in_trace(label: MethodLabel, headers: &HeaderMap, logged: bool) -> Span {
    if label.hot && LevelFilter::current() < LevelFilter::DEBUG {
        return Span::none();
    }
    let parent =
        headers.contains_key(&TRACEPARENT).then(|| TraceContextPropagator::new().extract(&TraceParent(headers)));
    let parent = parent.filter(|parent: &Context| parent.span().span_context().is_valid());
    let span = match (sampling::drops(parent.as_ref()), logged) {
        (false, true) => span!(targets::RPC, label),
        (false, false) => span!(targets::UNLOGGED, label, Level::INFO),
        (true, true) => return span!(targets::UNSAMPLED, label),
        (true, false) => return span!(targets::UNWANTED, label, Level::INFO),
    };
    if let Some(parent) = parent.filter(|_| !span.is_disabled()) {
        // Fails where spans are logged but not exported: then there is nothing to be the parent of.
        let _ = span.set_parent(parent);
    }
    span
}

/// Gives the propagator `traceparent` and nothing else. `tracestate` is free text of the caller's, and would be
/// exported with the span.
struct TraceParent<'a>(&'a HeaderMap);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == TRACEPARENT_NAME { self.0.get(&TRACEPARENT)?.to_str().ok() } else { None }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT_NAME]
    }
}

/// Reports whether a status means that the server failed, as opposed to the client (semantic conventions for gRPC
/// servers).
fn is_server_fault(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
