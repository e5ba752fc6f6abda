//! What goes on on one connection, and when that is too little to keep it.
//!
//! Calls count without looking at a clock: whoever watches looks now and then, and tells time by whether anything has
//! changed since.

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

/// How often a connection is looked at in the shortest of its limits.
const CHECKS_PER_LIMIT: u32 = 4;
/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimeouts {
    /// For its preface and SETTINGS; and for each block of headers from its first byte to its last.
    pub handshake: Duration,
    /// Without an open call.
    pub idle_max: Duration,
    /// Until its client reads some more of an answer that waits.
    pub unread_max: Duration,
}

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutReason {
    /// Its client did not say what it had begun, or nothing at all.
    Silent,
    /// It had no open call for long.
    Idle,
    /// Its client does not read an answer.
    Unread,
}

/// What goes on on one connection. Its calls and its reader are on one thread, with whoever watches.
pub(crate) struct Activity {
    permit: ConnectionPermit,
    greeted: AtomicBool,
    open: AtomicUsize,
    begun: AtomicU64,
    /// Whether headers are waited for, and how often that began.
    waits: AtomicBool,
    waited: AtomicU64,
    begins_to_wait: Notify,
    /// Pieces of answers that the transport has and cannot send; and how many it could.
    given: AtomicUsize,
    taken: AtomicU64,
    /// The large answers that are in memory, or were.
    large: Mutex<Vec<LargeResponse>>,
}

/// How far an answer has come: for as long as there are two of it, the answer is in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseProgress(Arc<AtomicU64>);

struct LargeResponse {
    progress: ResponseProgress,
    snapshot: u64,
    since: Instant,
}

/// What there was at one look.
#[derive(Clone, Copy)]
struct ActivitySnapshot {
    open: usize,
    begun: u64,
    waits: bool,
    waited: u64,
    given: usize,
    taken: u64,
}

/// A call that is open: from its headers until the transport has let go of its answer.
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

    /// Counts a call.
    pub(crate) fn open(self: &Arc<Self>) -> OpenCall {
        let begun = self.begun.load(Relaxed);
        if begun == 0 {
            self.permit.mark_used();
        }
        self.begun.store(begun + 1, Relaxed);
        add(&self.open, 1);
        OpenCall(self.clone())
    }

    /// Whether its client has said what it must before it calls.
    pub(super) fn has_greeted(&self) -> bool {
        self.greeted.load(Relaxed)
    }

    /// Completes when the connection has been kept for too long.
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
            // Whoever begins to wait wakes it: a limit may be much shorter than the pause.
            let _ = timeout(limit / CHECKS_PER_LIMIT, self.begins_to_wait.notified()).await;
            let snapshot = self.snapshot();
            let now = Instant::now();
            if snapshot.open > 0 || snapshot.begun != before.begun {
                idle_since = now;
            }
            if !snapshot.waits || snapshot.waited != before.waited {
                // This look was woken by it.
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

    /// Whether an answer has stood still for so long. Large answers are looked at one by one: their client may read
    /// others meanwhile.
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

    /// Completes when the connection has had no call for so long: then nothing is lost with it.
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
    /// The transport has a piece of its answer.
    pub(crate) fn given(&self) {
        add(&self.0.given, 1);
    }

    /// The transport asks for the next, and so could send it.
    pub(crate) fn taken(&self) {
        add(&self.0.given, usize::MAX);
        self.0.taken.store(self.0.taken.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Its answer is large: its progress is watched.
    pub(crate) fn large(&self) -> ResponseProgress {
        let progress = ResponseProgress::default();
        let large = LargeResponse { progress: progress.clone(), snapshot: 0, since: Instant::now() };
        self.0.large.lock().unwrap_or_else(PoisonError::into_inner).push(large);
        progress
    }
}

impl ResponseProgress {
    /// A piece was given to the transport.
    pub(crate) fn made(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Adds, for one thread: what calls count costs no more than it would in a plain number.
fn add(counter: &AtomicUsize, count: usize) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        add(&self.0.open, usize::MAX);
    }
}
