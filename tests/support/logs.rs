//! Everything that the process logs, kept for the scan for secrets that ends `deploy/test`.

use std::{
    fs::OpenOptions,
    path::PathBuf,
    sync::{Arc, Once},
};

use latchkey::{
    settings::LogFormat,
    telemetry::{self, LogOptions, Metrics, Otlp},
};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

static STARTED: Once = Once::new();

/// The most that can be logged: what is not written cannot be found to leak.
const FILTER: &str = "trace";

/// The folder that `deploy/test` scans; `None` when tests run without it.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("LATCHKEY_TEST_LOG_DIR").map(PathBuf::from)
}

/// Starts logging for the process, once.
pub fn start() {
    STARTED.call_once(|| {
        let Some(folder) = folder() else { return };
        let path = folder.join(format!("process-{}.log", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(path).expect("the log folder is writable");
        let writer = BoxMakeWriter::new(Arc::new(file));
        let options = LogOptions::captured(LogFormat::Json, FILTER, writer);
        let guard = telemetry::init(options, &Otlp::off(), &Arc::new(Metrics::new())).expect("logs start once");
        // Nothing is exported: there is nothing to flush.
        std::mem::forget(guard);
    });
}

/// Writes down a secret that the scan must not find.
pub fn keep_secret(name: &str, secret: &str) {
    if let Some(folder) = std::env::var_os("LATCHKEY_TEST_SECRETS_DIR") {
        let path = PathBuf::from(folder).join(format!("{name}-{}.pepper", std::process::id()));
        std::fs::write(path, format!("{secret}\n")).expect("the secrets folder is writable");
    }
}
