//! What goes on on one connection, and when that is too little to keep it.
//!
//! Calls count without looking at a clock: whoever watches looks now and then, and tells time by whether anything has
//! changed since.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{admission::Place, wire::Pulse};

/// How often a connection is looked at in the shortest of its limits.
const LOOKS_PER_LIMIT: u32 = 4;
/// How long a connection that is to end must be without a call before it is cut, in case its peer does not answer.
const QUIET: Duration = Duration::from_millis(300);

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For its preface and SETTINGS; and for each block of headers from its first byte to its last.
    pub handshake: Duration,
    /// Without an open call.
    pub idle_max: Duration,
}

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overstay {
    /// Its client did not say what it had begun, or nothing at all.
    Silent,
    /// It had no open call for long.
    Idle,
}

/// What goes on on one connection. Its calls and its reader are on one thread, with whoever watches.
pub(super) struct Activity {
    place: Place,
    greeted: AtomicBool,
    open: AtomicUsize,
    begun: AtomicU64,
    /// Whether headers are waited for, and how often that began.
    waits: AtomicBool,
    waited: AtomicU64,
    begins_to_wait: Notify,
}

/// What there was at one look.
#[derive(Clone, Copy)]
struct Seen {
    open: usize,
    begun: u64,
    waits: bool,
    waited: u64,
}

/// A call that is open: from its headers until the transport has let go of its answer.
pub(super) struct OpenCall(Arc<Activity>);

// === impl Activity ===

impl Activity {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            greeted: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            begins_to_wait: Notify::new(),
        }
    }

    /// Counts a call.
    pub(super) fn open(self: &Arc<Self>) -> OpenCall {
        if self.begun.fetch_add(1, Relaxed) == 0 {
            self.place.is_used();
        }
        self.open.fetch_add(1, Relaxed);
        OpenCall(self.clone())
    }

    /// Whether its client has said what it must before it calls.
    pub(super) fn has_greeted(&self) -> bool {
        self.greeted.load(Relaxed)
    }

    /// Completes when the connection has been kept for too long.
    pub(super) async fn overstays(&self, patience: Patience) -> Overstay {
        tokio::time::sleep(patience.handshake).await;
        if !self.has_greeted() {
            return Overstay::Silent;
        }
        let mut before = self.seen();
        let (mut idle_since, mut waiting_since) = (Instant::now(), Instant::now());
        loop {
            let limit = if before.waits { patience.handshake } else { patience.idle_max };
            // Whoever begins to wait wakes it: a limit may be much shorter than the pause.
            let _ = timeout(limit / LOOKS_PER_LIMIT, self.begins_to_wait.notified()).await;
            let seen = self.seen();
            let now = Instant::now();
            if seen.open > 0 || seen.begun != before.begun {
                idle_since = now;
            }
            if !seen.waits || seen.waited != before.waited {
                // This look was woken by it.
                waiting_since = now;
            }
            before = seen;
            if now - waiting_since >= patience.handshake && before.waits {
                return Overstay::Silent;
            }
            if now - idle_since >= patience.idle_max {
                return Overstay::Idle;
            }
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            open: self.open.load(Relaxed),
            begun: self.begun.load(Relaxed),
            waits: self.waits.load(Relaxed),
            waited: self.waited.load(Relaxed),
        }
    }

    /// Completes when the connection has had no call for a moment: then nothing is lost with it.
    pub(super) async fn quiet(&self) {
        loop {
            let begun = self.begun.load(Relaxed);
            let before = self.open.load(Relaxed);
            tokio::time::sleep(QUIET).await;
            if before == 0 && self.open.load(Relaxed) == 0 && begun == self.begun.load(Relaxed) {
                return;
            }
        }
    }
}

impl Pulse for Arc<Activity> {
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

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
