//! Why telemetry cannot start.

/// Says why telemetry cannot start. All are mistakes of configuration; a collector that does not answer is no error.
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
    /// A subscriber is installed already.
    #[error("telemetry is already initialised in this process")]
    AlreadyInitialised,
}
