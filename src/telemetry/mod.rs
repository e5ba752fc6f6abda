//! Telemetry: logs to standard error, traces and metrics over OTLP.
//!
//! This module knows RPCs by name, status and duration, and nothing of their content. It must never see a token, a
//! request id or a pepper; four things see to that:
//!
//! - [`GrpcLayer`] records no header, metadata or body, with one exception: the ids in a well-formed `traceparent`. An
//!   RPC whose path is not in the [`MethodTable`] is recorded as `_OTHER`, never by its path.
//! - Only spans and events of this crate are exported, and other crates' are logged from INFO up only, whatever the
//!   filter says: below that, HTTP/2 libraries and database drivers print headers and statements.
//! - Token types are never fields. They redact in `Debug` and have no `Display`.
//! - Names and outcomes given to [`Metrics`] are `&'static str`, so that no value of a request can become a label.

mod clock;
mod error;
mod grpc_layer;
mod log;
mod methods;
mod metrics;
mod otlp;
mod rpc;
mod sampling;
mod start;
mod targets;

pub use self::{
    error::InitError,
    grpc_layer::{GrpcLayer, GrpcService, ObservedBody, ResponseFuture},
    log::logs::{LOG_BUFFER_BYTES_MAX, LOG_CALLS_PER_SECOND_MAX, LOG_REPEATS_PER_SECOND_MAX, LogOptions, LogSink},
    methods::{MethodLabel, MethodTable},
    metrics::{CacheLookup, DroppedRecord, Eviction, LeftOut, Metrics},
    otlp::{Otlp, OtlpTarget, SHUTDOWN_TIMEOUT},
    start::{TelemetryGuard, build, init},
};
