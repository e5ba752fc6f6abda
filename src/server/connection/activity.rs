//! Tracks the activity of one connection, and detects when its timeouts have passed.
//!
//! Calls are counted without reading a clock: a watching future compares the counters now and then, and measures time
//! by whether they have changed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::server::{listen::admission::ConnectionPermit, wire::inspected_stream::WireEvents};

/// How often a connection is checked within the shortest of its limits.
const CHECKS_PER_LIMIT: u32 = 4;
/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimeouts {
    /// For its preface and SETTINGS, and for each header block from its first byte to its last.
    pub handshake: Duration,
    /// For a connection without an open call.
    pub idle_max: Duration,
    /// Until the client reads more of a waiting response.
    pub unread_max: Duration,
}

/// The timeout that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutReason {
    /// The client did not complete the handshake or a header block.
    Silent,
    /// There was no open call.
    Idle,
    /// The client does not read a response.
    Unread,
}

/// The activity of one connection. Its calls, its reader and its watcher run on one thread.
pub(crate) struct Activity {
    permit: ConnectionPermit,
    greeted: AtomicBool,
    open: AtomicUsize,
    begun: AtomicU64,
    /// Whether a header block is incomplete, and how often one became so.
    waits: AtomicBool,
    waited: AtomicU64,
    begins_to_wait: Notify,
    /// Pieces of responses that the transport has not sent; and how many it has.
    given: AtomicUsize,
    taken: AtomicU64,
    /// The large responses that are in memory, or were.
    large: Mutex<Vec<LargeResponse>>,
}

/// The progress of a response: the response is in memory for as long as there are two handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseProgress(Arc<AtomicU64>);

struct LargeResponse {
    progress: ResponseProgress,
    snapshot: u64,
    since: Instant,
}

/// The counters at one check.
#[derive(Clone, Copy)]
struct ActivitySnapshot {
    open: usize,
    begun: u64,
    waits: bool,
    waited: u64,
    given: usize,
    taken: u64,
}

/// An open call: from its headers until the transport has released its response.
pub(crate) struct OpenCall(Arc<Activity>);

// === impl Activity ===

impl Activity {
    pub(crate) fn new(permit: ConnectionPermit) -> Self {
        Self {
            permit,
            greeted: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            begins_to_wait: Notify::new(),
            given: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            large: Mutex::default(),
        }
    }

    /// Counts a new call as open.
    pub(crate) fn open(self: &Arc<Self>) -> OpenCall {
        let begun = self.begun.load(Relaxed);
        if begun == 0 {
            self.permit.mark_used();
        }
        self.begun.store(begun + 1, Relaxed);
        add(&self.open, 1);
        OpenCall(self.clone())
    }

    /// Reports whether the client has completed the handshake.
    pub(super) fn has_greeted(&self) -> bool {
        self.greeted.load(Relaxed)
    }

    /// Completes when one of the timeouts has passed.
    pub(super) async fn timed_out(&self, timeouts: ConnectionTimeouts) -> TimeoutReason {
        tokio::time::sleep(timeouts.handshake).await;
        if !self.has_greeted() {
            return TimeoutReason::Silent;
        }
        let mut before = self.snapshot();
        let now = Instant::now();
        let (mut idle_since, mut waiting_since, mut unread_since) = (now, now, now);
        loop {
            let limit = timeouts.idle_max.min(timeouts.unread_max);
            let limit = if before.waits { timeouts.handshake.min(limit) } else { limit };
            // An incomplete header block wakes this early: its timeout may be much shorter than the interval.
            let _ = timeout(limit / CHECKS_PER_LIMIT, self.begins_to_wait.notified()).await;
            let snapshot = self.snapshot();
            let now = Instant::now();
            if snapshot.open > 0 || snapshot.begun != before.begun {
                idle_since = now;
            }
            if !snapshot.waits || snapshot.waited != before.waited {
                // This check was woken by the header block that has just begun.
                waiting_since = now;
            }
            if snapshot.given == 0 || snapshot.taken != before.taken {
                unread_since = now;
            }
            before = snapshot;
            if now - unread_since >= timeouts.unread_max || self.is_unread(timeouts.unread_max, now) {
                return TimeoutReason::Unread;
            }
            if now - waiting_since >= timeouts.handshake && before.waits {
                return TimeoutReason::Silent;
            }
            if now - idle_since >= timeouts.idle_max {
                return TimeoutReason::Idle;
            }
        }
    }

    fn snapshot(&self) -> ActivitySnapshot {
        ActivitySnapshot {
            open: self.open.load(Relaxed),
            begun: self.begun.load(Relaxed),
            waits: self.waits.load(Relaxed),
            waited: self.waited.load(Relaxed),
            given: self.given.load(Relaxed),
            taken: self.taken.load(Relaxed),
        }
    }

    /// Reports whether a large response has made no progress for `limit`. They are checked one by one: a client may
    /// read some and not others.
    fn is_unread(&self, limit: Duration, now: Instant) -> bool {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        large.retain(|large| Arc::strong_count(&large.progress.0) > 1);
        let stands = |large: &mut LargeResponse| {
            let snapshot = std::mem::replace(&mut large.snapshot, large.progress.0.load(Relaxed));
            if snapshot != large.snapshot {
                large.since = now;
            }
            now - large.since >= limit
        };
        large.iter_mut().any(stands)
    }

    /// Completes when the connection has had no call for `limit`: closing it then loses nothing.
    pub(super) async fn quiet(&self, limit: Duration) {
        loop {
            let begun = self.begun.load(Relaxed);
            let before = self.open.load(Relaxed);
            tokio::time::sleep(limit).await;
            if before == 0 && self.open.load(Relaxed) == 0 && begun == self.begun.load(Relaxed) {
                return;
            }
        }
    }
}

impl WireEvents for Arc<Activity> {
    fn greeted(&self) {
        self.greeted.store(true, Relaxed);
    }

    fn waits_for_headers(&self, waits: bool) {
        if waits && !self.waits.load(Relaxed) {
            self.waited.fetch_add(1, Relaxed);
            self.begins_to_wait.notify_one();
        }
        self.waits.store(waits, Relaxed);
    }
}

// === impl OpenCall ===

impl OpenCall {
    /// Notes that the transport has a piece of the response.
    pub(crate) fn given(&self) {
        add(&self.0.given, 1);
    }

    /// Notes that the transport asks for the next piece, so that it has sent the last.
    pub(crate) fn taken(&self) {
        add(&self.0.given, usize::MAX);
        self.0.taken.store(self.0.taken.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Starts tracking the progress of a large response.
    pub(crate) fn large(&self) -> ResponseProgress {
        let progress = ResponseProgress::default();
        let large = LargeResponse { progress: progress.clone(), snapshot: 0, since: Instant::now() };
        self.0.large.lock().unwrap_or_else(PoisonError::into_inner).push(large);
        progress
    }
}

impl ResponseProgress {
    /// Notes that a piece was handed to the transport.
    pub(crate) fn made(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Adds on one thread only: counting costs no more than in a plain integer.
fn add(counter: &AtomicUsize, count: usize) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        add(&self.0.open, usize::MAX);
    }
}
