//! What every command shares with the process it runs in: signals, standard output, telemetry, the last word.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    error::Error,
    fmt::Display,
    io::{self, ErrorKind, Write},
    panic,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::{
    settings::LogSettings,
    telemetry::{self, LogOptions, LogSink, Metrics, Otlp},
};

/// The signals that ask this process to stop: Ctrl-C and SIGTERM. From the moment this is made, they no longer end
/// the process by themselves; so make it before anything is started that would have to be stopped.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Completes when the process is asked to stop: once a signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs what stops the process, unless another signal says that it takes too long.
    pub(super) async fn hurried<T>(&mut self, stopping: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            stopped = stopping => Ok(stopped),
            () = self.next() => Err("stopped immediately by a second signal; running calls were cut off".into()),
        }
    }
}

/// Has the kernel give memory in pages of 4 KiB. The allocator asks for those of 2 MiB, and each that is touched for the
/// first time is filled with zeros in one go, by the thread that touches it: a serving thread stands still for up to a
/// millisecond, again and again while connections are opened or large answers are made.
pub(super) fn use_small_pages() {
    // A kernel without huge pages refuses, and gives none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// How long the last word of a command waits for whoever reads standard error.
const LAST_WORD_WAIT: Duration = Duration::from_secs(1);

/// Runs a command's work with logs and, where the standard variables say so, OTLP export; what is left to export is
/// exported however the work ends. A panic is logged like anything else: written to standard error by the thread that
/// panics, it would hold that thread up for as long as nobody reads.
pub(super) async fn with_telemetry(
    log: LogSettings<'_>,
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

/// Says on standard error why a command failed, unless nobody reads there.
pub(super) fn last_word(failure: &(dyn Error + 'static)) {
    let text = report(failure);
    let (said, heard) = mpsc::channel();
    let speaker = thread::Builder::new().spawn(move || {
        eprintln!("{text}");
        // The process may have ended by now.
        let _ = said.send(());
    });
    if speaker.is_ok() {
        let _ = heard.recv_timeout(LAST_WORD_WAIT);
    }
}

/// Prints on standard output. A reader that went away (`| head`) has seen all that it wanted.
pub(super) fn say(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Tells the person at the terminal why a command failed, with its causes. Some errors of libraries repeat their
/// cause in their own text: that is said once.
fn report(failure: &(dyn Error + 'static)) -> String {
    let mut last = failure.to_string();
    let mut text = format!("latchkey: {last}");
    let mut cause = failure.source();
    while let Some(source) = cause {
        let said = source.to_string();
        if !last.contains(&said) {
            text.push_str("\n  caused by: ");
            text.push_str(&said);
            last = said;
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let told = |text, cause| Told(text, Some(Box::new(cause)));
        let refused = Told("refused", None);
        let chain = told("it failed", told("cannot connect: refused", told("refused", told("the disk", refused))));
        let text = report(&chain);
        assert_eq!(
            text,
            "latchkey: it failed\n  caused by: cannot connect: refused\n  caused by: the disk\n  caused by: refused"
        );
    }
}
