//! One RPC as it is observed: its span and its measurements, from the first byte to the last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{MethodLabel, Metrics};

/// The target of RPC spans, for filters.
pub(super) const TARGET: &str = "latchkey::rpc";

const TRACEPARENT: &str = "traceparent";

/// An RPC in progress. If it is dropped before [`finish`](Self::finish), the RPC never had an end: the client went
/// away, or the server stopped.
#[derive(Debug)]
pub(super) struct Rpc {
    span: Span,
    label: MethodLabel,
    metrics: Arc<Metrics>,
    stopwatch: Option<Stopwatch>,
    finished: bool,
}

impl Rpc {
    /// Begins to observe. Looks at one header only, `traceparent`.
    pub(super) fn start(label: MethodLabel, headers: &HeaderMap, metrics: Arc<Metrics>) -> Self {
        let span = span(label);
        if !span.is_disabled() && headers.contains_key(TRACEPARENT) {
            let parent = TraceContextPropagator::new().extract(&TraceParent(headers));
            // Fails where spans are logged but not exported: then there is nothing to be the parent of.
            let _ = span.set_parent(parent);
        }
        // A clock reading is the dearest thing here: none unless somebody wants the duration.
        let stopwatch = metrics.is_exported().then(Stopwatch::start);
        Self { span, label, metrics, stopwatch, finished: false }
    }

    /// The span that the RPC's work happens in.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// The status that these headers or trailers carry. Its message is left alone: it may quote the request.
    pub(super) fn status_in(headers: &HeaderMap) -> Option<Code> {
        headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
    }

    /// Records the end, once.
    pub(super) fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let name = code_name(code);
        if !self.span.is_disabled() {
            self.span.record("rpc.response.status_code", name);
            if is_server_fault(code) {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("error.type", name);
            }
        }
        if let Some(stopwatch) = &self.stopwatch {
            self.metrics.rpc_duration(self.label, name, stopwatch.elapsed());
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        if !self.finished {
            self.metrics.rpc_unfinished(self.label);
            self.finish(Code::Cancelled);
        }
    }
}

/// A span per the semantic conventions for RPC: `rpc.method` is the whole name. Hot methods get one that nothing wants
/// at the default log level unless traces are exported.
fn span(label: MethodLabel) -> Span {
    macro_rules! span_at {
        ($level:expr) => {
            tracing::span!(
                target: TARGET,
                parent: None,
                $level,
                "rpc",
                otel.name = label.method,
                otel.kind = "server",
                rpc.system.name = "grpc",
                rpc.service = label.service,
                rpc.method = label.method,
                rpc.response.status_code = Empty,
                otel.status_code = Empty,
                "error.type" = Empty,
            )
        };
    }
    if label.hot { span_at!(tracing::Level::DEBUG) } else { span_at!(tracing::Level::INFO) }
}

/// Gives the propagator `traceparent` and nothing else. `tracestate` is free text of the caller's, and would be
/// exported with the span.
struct TraceParent<'a>(&'a HeaderMap);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == TRACEPARENT { self.0.get(TRACEPARENT)?.to_str().ok() } else { None }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// The statuses that mean that the server failed, as opposed to the client (semantic conventions for gRPC servers).
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

/// The one clock here. It times what is reported to people and decides nothing, so no test needs to own it.
#[derive(Debug)]
struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "it is only reported: no decision, no test depends on it")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
