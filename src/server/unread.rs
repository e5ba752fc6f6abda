//! Bytes of answers that clients have not read: bounded for each connection, each peer and the process.
//!
//! HTTP/2 lets a client ask for many answers and read none. A method whose answers may be large reserves what one may
//! take before it runs; when the answer is there, the reservation becomes its true size, and it ends when the last byte
//! has left for the socket. All other answers are small, and pay for a look at their path.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use prost::bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

/// How long a call waits until it may run. As many wait as the connection may have calls, with nothing but their headers.
const RESERVE_WAIT: Duration = Duration::from_secs(5);
/// What no peer may have of the process's share: so two that read nothing do not shut out a third.
const PEER_SHARE: usize = 2;

const MIB: usize = 1024 * 1024;
/// A page of a thousand keys or events, and more.
const LIST_BYTES: usize = 4 * MIB;
const CATALOGUE_BYTES: usize = MIB;
const DESCRIPTORS_BYTES: usize = 256 * 1024;
/// A batch is answered at once, and most are small; one that is not counts as what it is.
const BATCH_BYTES: usize = 64 * 1024;
/// A message from this size on counts although nothing was reserved for it.
pub(super) const LARGE_BYTES: usize = 64 * 1024;

/// What a method's answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Estimate {
    bytes: usize,
    /// Whether it is only the connection's: a batch of verifications touches nothing that other threads write to.
    own: bool,
}

/// Bytes that may be in use at one time.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    used: AtomicUsize,
    freed: Notify,
}

/// The budgets that a connection's answers are in: its own first, then its peer's and the process's.
#[derive(Clone, Debug)]
pub(super) struct Unread([Arc<Budget>; 3]);

/// Bytes of an answer, until dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    budgets: Unread,
    own: bool,
    bytes: usize,
}

/// There is no room for an answer, and was none for a while.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// What an answer of a method may take; `None` if that is little.
pub(super) fn estimate(path: &str) -> Option<Estimate> {
    let (_, method) = path.rsplit_once('/')?;
    let (bytes, own) = match method {
        "VerifyToken" => return None,
        "VerifyTokens" => (BATCH_BYTES, true),
        "ListApiKeys" | "ListEvents" | "ListUsers" | "ListTeams" | "ListRoles" | "ListAccounts" => (LIST_BYTES, false),
        "GetCatalogue" | "ApplyCatalogue" => (CATALOGUE_BYTES, false),
        "ServerReflectionInfo" => (DESCRIPTORS_BYTES, false),
        _ => return None,
    };
    Some(Estimate { bytes, own })
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// What one peer may have of this.
    pub(super) fn for_a_peer(&self) -> Arc<Self> {
        Self::new(self.max / PEER_SHARE)
    }

    /// What is larger than all there is may have all there is.
    fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.max).then_some(used + bytes);
        self.used.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    async fn take(&self, bytes: usize) {
        while !self.try_take(bytes) {
            let freed = self.freed.notified();
            // Freed since the last try, it would not be told.
            if self.try_take(bytes) {
                break;
            }
            freed.await;
        }
        // Whoever waits behind may fit, too.
        self.freed.notify_one();
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
        self.freed.notify_one();
    }

    fn is_over(&self) -> bool {
        self.used.load(Relaxed) >= self.max
    }
}

// === impl Unread ===

impl Unread {
    pub(super) fn new(connection_max: usize, peer: Arc<Budget>, process: Arc<Budget>) -> Self {
        Self([Budget::new(connection_max), peer, process])
    }

    /// Reserves what an answer may take.
    ///
    /// # Errors
    /// If that is not possible for [`RESERVE_WAIT`].
    pub(super) async fn reserve(&self, estimate: Estimate) -> Result<Reserved, NoRoom> {
        let Estimate { bytes, own } = estimate;
        let mut reserved = Reserved { budgets: self.clone(), own, bytes: 0 };
        let all = async {
            // What is taken is given back if this is dropped on the way.
            let mut taken = Taken { budgets: reserved.used(), bytes, count: 0 };
            for budget in taken.budgets {
                budget.take(bytes).await;
                taken.count += 1;
            }
            std::mem::forget(taken);
        };
        timeout(RESERVE_WAIT, all).await.map_err(|_| NoRoom)?;
        reserved.bytes = bytes;
        Ok(reserved)
    }

    /// Counts an answer that is there already, whether or not there is room for it.
    pub(super) fn count(&self, bytes: usize) -> Reserved {
        let mut reserved = Reserved { budgets: self.clone(), own: false, bytes: 0 };
        reserved.resize(bytes);
        reserved
    }

    /// Whether the connection has all that it may have.
    pub(super) fn is_over(&self) -> bool {
        self.0[0].is_over()
    }

    /// Completes when the connection may have given something back.
    pub(super) fn freed(&self) -> impl Future<Output = ()> + Send + use<> {
        let budget = self.0[0].clone();
        async move {
            while budget.is_over() {
                let freed = budget.freed.notified();
                if budget.is_over() {
                    freed.await;
                }
            }
            budget.freed.notify_one();
        }
    }
}

/// What was taken so far of several budgets, given back if dropped.
struct Taken<'a> {
    budgets: &'a [Arc<Budget>],
    bytes: usize,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.budgets[..self.count].iter().for_each(|budget| budget.give(self.bytes));
    }
}

// === impl Reserved ===

impl Reserved {
    fn used(&self) -> &[Arc<Budget>] {
        if self.own { &self.budgets.0[..1] } else { &self.budgets.0 }
    }

    /// Makes it what the answer really takes.
    pub(super) fn resize(&mut self, bytes: usize) {
        for budget in self.used() {
            if bytes > self.bytes {
                budget.used.fetch_add(bytes - self.bytes, Relaxed);
            } else {
                budget.give(self.bytes - bytes);
            }
        }
        self.bytes = bytes;
    }

    /// The message that it is for, which keeps it for as long as any part of the message is in memory.
    pub(super) fn into_message<K: Send + 'static>(mut self, message: Bytes, kept: K) -> Bytes {
        self.resize(message.len());
        Bytes::from_owner(Message { bytes: message, _reserved: self, _kept: kept })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.resize(0);
    }
}

struct Message<K> {
    bytes: Bytes,
    _reserved: Reserved,
    _kept: K,
}

impl<K> AsRef<[u8]> for Message<K> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
#[path = "unread_tests.rs"]
mod tests;
