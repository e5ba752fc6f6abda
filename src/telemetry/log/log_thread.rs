//! Writes log lines from a thread of their own, so that a thread that logs never waits for the reader of the log.
//!
//! Standard error is often a pipe. When its reader is slow or gone, a write to it blocks for as long as that lasts, and
//! a thread that serves calls would answer none of them. So a line goes into a buffer that is bounded in bytes; one
//! that does not fit is dropped and counted, and how many were is logged as soon as there is room again.

use std::{
    io::{self, ErrorKind, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::{
    clock::now,
    metrics::{LeftOut, Metrics},
};

/// How often the thread reports what was left out.
pub(super) const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// Longest that [`LogThread::flush`] waits for a reader.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a pipe that takes nothing for now is tried again.
const RETRY_PERIOD: Duration = Duration::from_millis(20);
/// One part in this many of the buffer is kept for warnings and errors: access lines must not crowd them out.
const URGENT_SHARE: usize = 4;

/// The end of the buffer that lines are put into.
#[derive(Clone, Debug)]
pub(crate) struct LogBuffer(Arc<LogBufferState>);

/// The thread that writes them. Dropped, it writes what it can within [`FLUSH_TIMEOUT`] and ends.
#[derive(Debug)]
pub(crate) struct LogThread(LogBuffer);

/// One line on its way into the buffer.
pub(crate) struct Line<'a> {
    buffer: &'a LogBuffer,
    urgent: bool,
}

#[derive(Debug)]
struct LogBufferState {
    pending: Mutex<Pending>,
    /// Something arrived, was written, or ended.
    changed: Condvar,
    bytes_max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
    /// Lines that were dropped since the last report.
    dropped: u64,
    writing: bool,
    ended: bool,
}

// === impl LogBuffer ===

impl LogBuffer {
    pub(crate) fn new(bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(LogBufferState { pending: Mutex::default(), changed: Condvar::new(), bytes_max, metrics }))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8], urgent: bool) {
        let spare = if urgent { 0 } else { self.0.bytes_max / URGENT_SHARE };
        let mut pending = self.pending();
        if pending.ended || pending.bytes.len() + line.len() > self.0.bytes_max - spare {
            pending.dropped += 1;
            drop(pending);
            return self.0.metrics.log_lines_left_out(LeftOut::BufferFull, 1);
        }
        let was_empty = pending.bytes.is_empty();
        pending.bytes.extend_from_slice(line);
        pending.lines += 1;
        drop(pending);
        if was_empty {
            self.0.changed.notify_all();
        }
    }

    /// Returns how many lines were dropped since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        mem::take(&mut self.pending().dropped)
    }

    /// Waits for lines until a moment, and takes them; `None` once it has ended and nothing is left.
    fn take(&self, batch: &mut Vec<u8>, until: Instant) -> Option<u64> {
        batch.clear();
        let mut pending = self.pending();
        pending.writing = false;
        self.0.changed.notify_all();
        while pending.bytes.is_empty() && !pending.ended {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            pending = self.0.changed.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        mem::swap(&mut pending.bytes, batch);
        pending.writing = !batch.is_empty();
        let lines = mem::take(&mut pending.lines);
        (pending.writing || !pending.ended).then_some(lines)
    }

    /// Counts lines that were taken and could not be written.
    fn lost(&self, lines: u64) {
        self.pending().dropped += lines;
        self.0.metrics.log_lines_left_out(LeftOut::BufferFull, lines);
    }

    /// Writes until it ends; `report` is called now and then, and may log.
    fn write_to(&self, mut out: impl Write, report: impl Fn()) {
        let mut batch = Vec::new();
        let mut report_at = now() + REPORT_PERIOD;
        while let Some(lines) = self.take(&mut batch, report_at) {
            if write_all(&mut out, &batch).is_err() {
                self.lost(lines);
            }
            if now() >= report_at {
                report();
                report_at = now() + REPORT_PERIOD;
            }
        }
    }
}

/// Writes all, also to a pipe that another process has made non-blocking.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PERIOD),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

impl<'a> MakeWriter<'a> for LogBuffer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { buffer: self, urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { buffer: self, urgent: *metadata.level() <= Level::WARN }
    }
}

impl Write for Line<'_> {
    /// Takes the whole line, whatever becomes of it: the formatter gives each in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.buffer.put(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl LogThread ===

impl LogThread {
    /// Starts to write what is in the buffer, and what comes.
    pub(crate) fn start(
        buffer: LogBuffer,
        out: impl Write + Send + 'static,
        report: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let writer = buffer.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(out, report))?;
        Ok(Self(buffer))
    }

    /// Waits until everything is written, but no longer than [`FLUSH_TIMEOUT`]; reports whether it is.
    pub(crate) fn flush(&self) -> bool {
        let shared = &self.0.0;
        let busy = |pending: &mut Pending| pending.writing || !pending.bytes.is_empty();
        let waited = shared.changed.wait_timeout_while(self.0.pending(), FLUSH_TIMEOUT, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.flush();
        self.0.pending().ended = true;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A pipe whose reader takes a write at a time, when the test lets it.
    struct Pipe {
        read: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.read.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn piped(bytes_max: usize) -> (LogBuffer, LogThread, Sender<()>, Receiver<Vec<u8>>, Arc<Metrics>) {
        let ((reads, read), (written, lines), metrics) = (channel(), channel(), Arc::new(Metrics::new()));
        let buffer = LogBuffer::new(bytes_max, metrics.clone());
        let thread = LogThread::start(buffer.clone(), Pipe { read, written }, || {}).unwrap();
        (buffer, thread, reads, lines, metrics)
    }

    #[test]
    fn lines_are_written_in_their_order_and_whole() {
        let metrics = Arc::new(Metrics::new());
        let (written, lines) = channel();
        let (reads, read) = channel();
        (0..1_000).for_each(|_| reads.send(()).unwrap());
        let buffer = LogBuffer::new(1 << 20, metrics.clone());
        let thread = LogThread::start(buffer.clone(), Pipe { read, written }, || {}).unwrap();
        let wanted: String = (0..500).map(|i| format!("line {i}\n")).collect();
        wanted.split_inclusive('\n').for_each(|line| buffer.make_writer().write_all(line.as_bytes()).unwrap());
        assert!(thread.flush());
        drop(thread);
        let all: Vec<u8> = lines.iter().flatten().collect();
        assert_eq!(String::from_utf8(all).unwrap(), wanted);
        assert_eq!(metrics.log_lines_left_out_count(LeftOut::BufferFull), 0);
    }

    #[test]
    fn logging_never_waits_and_the_buffer_never_grows_beyond_its_bound() {
        let (buffer, thread, reads, lines, metrics) = piped(4_000);
        let line = [b'x'; 100];
        (0..100_000).for_each(|_| buffer.put(&line, false));
        assert!(buffer.pending().bytes.len() <= 3_000);
        // Warnings have room of their own, and that has an end too.
        (0..100).for_each(|_| buffer.put(&line, true));
        assert!((3_001..=4_000).contains(&buffer.pending().bytes.len()));
        let dropped = metrics.log_lines_left_out_count(LeftOut::BufferFull);
        assert_eq!(dropped, buffer.take_dropped());
        assert!(!thread.flush(), "no reader");
        drop(reads);
        drop(thread);
        drop(lines);
        assert!(dropped >= 100_100 - 80, "{dropped}");
    }

    #[test]
    fn a_stop_is_bounded_without_a_reader() {
        let (buffer, thread, _reads, _lines, _metrics) = piped(1_000);
        buffer.put(b"a line\n", false);
        let before = now();
        drop(thread);
        assert!(before.elapsed() < 10 * FLUSH_TIMEOUT);
    }

    #[test]
    fn what_a_closed_pipe_does_not_take_is_counted() {
        let (buffer, thread, reads, lines, metrics) = piped(1_000);
        drop((reads, lines));
        buffer.put(b"a line\n", false);
        buffer.put(b"another\n", false);
        thread.flush();
        assert_eq!(metrics.log_lines_left_out_count(LeftOut::BufferFull), 2);
    }
}
