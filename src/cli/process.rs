//! What every command shares with the process it runs in: signals, standard output, memory pages, telemetry.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, ErrorKind, Write},
    panic,
    sync::Arc,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use crate::{
    settings::LogSettings,
    telemetry::{self, LogOptions, LogSink, Metrics, Otlp},
};

/// Receives the signals that ask this process to stop: Ctrl-C and SIGTERM. Once it listens, they no longer end the
/// process by themselves, so listen before anything is started that has to be stopped.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes over both signals.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs the work of stopping, and cuts it off at the next signal.
    pub(super) async fn or_cut_off<T>(&mut self, stopping: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            stopped = stopping => Ok(stopped),
            () = self.next() => Err("stopped immediately by a second signal; running calls were cut off".into()),
        }
    }
}

/// Turns transparent huge pages off for this process, so that memory comes in pages of 4 KiB. The allocator asks for
/// those of 2 MiB, and each that is touched for the first time is filled with zeros in one go, by the thread that
/// touches it: a serving thread stands still for up to a millisecond, again and again while connections are opened or
/// large answers are made.
pub(super) fn use_small_pages() {
    // A kernel without huge pages refuses, and has none to give.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Runs a command's work with logs and, if the standard `OTEL_` variables ask for it, OTLP export, which is flushed
/// however the work ends. A panic goes to the log too: the thread that panics would otherwise write it to standard
/// error itself, and block for as long as nothing reads there.
pub(super) async fn with_telemetry(
    log: LogSettings,
    work: impl AsyncFnOnce(Arc<Metrics>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let metrics = Arc::new(Metrics::new());
    let log = LogOptions {
        sink: LogSink::StandardError { buffer_bytes_max: log.buffer_bytes_max },
        repeats_per_second_max: log.repeats_per_second_max,
        calls_per_second_max: log.calls_per_second_max,
        ..LogOptions::to_stderr(log.format, log.filter.as_str())
    };
    let guard = telemetry::init(log, &Otlp::from_environment(), &metrics)?;
    panic::set_hook(Box::new(|panicked| {
        let payload = panicked.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let reason = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let location = panicked.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(reason, location, backtrace, "a thread panicked");
    }));
    let result = work(metrics).await;
    guard.shutdown().await;
    // What panics from here on could not be logged.
    drop(panic::take_hook());
    result
}

/// Prints a line on standard output. A closed pipe is no error: its reader (`| head`) has all that it wanted.
pub(super) fn print_line(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
