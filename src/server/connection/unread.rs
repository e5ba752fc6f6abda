//! Bounds the bytes of responses that clients have not read, for each connection, each peer and the process.
//!
//! HTTP/2 lets a client request many responses and read none. A method whose responses may be large reserves their
//! estimated size before it runs. When the response is there, the reservation becomes its true size, and it is released
//! when the last byte was written to the socket. All other responses are small, and cost a comparison of their path.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use prost::bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

/// How long a call waits for its reservation.
const RESERVE_WAIT: Duration = Duration::from_secs(5);
/// How many calls of one peer may wait at a time, as many as one connection may have; further calls are refused at
/// once.
const PEER_WAITING_CALLS_MAX: usize = 1_024;
/// A peer may have 1/`PEER_SHARE` of the process's budget, so that three peers that read nothing do not shut out a
/// fourth.
const PEER_SHARE: usize = 4;

const MIB: usize = 1024 * 1024;
/// The size of a page of a thousand keys or events, and more.
const LIST_BYTES: usize = 4 * MIB;
const CATALOGUE_BYTES: usize = MIB;
const DESCRIPTORS_BYTES: usize = 256 * 1024;
/// Most batches are small and answered at once; the true size of a large one counts once it is known.
const BATCH_BYTES: usize = 64 * 1024;
/// Messages of at least this size count even if nothing was reserved for them.
pub(super) const LARGE_BYTES: usize = 64 * 1024;

/// The estimated size of a method's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseEstimate {
    bytes: usize,
    /// Whether it counts for its connection alone: a batch of verifications touches nothing that other threads write
    /// to.
    own: bool,
}

/// A number of bytes that may be in use at one time.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    max: usize,
    used: AtomicUsize,
    /// Waiting calls, counted in their peer's budget.
    waiting: AtomicUsize,
    freed: Notify,
}

/// The budgets that a connection's responses count in: its own, its peer's and the process's.
#[derive(Clone, Debug)]
pub(crate) struct UnreadBudgets([Arc<ByteBudget>; 3]);

/// Bytes reserved for a response, released on drop.
#[derive(Debug)]
pub(crate) struct ResponseReservation {
    budgets: UnreadBudgets,
    own: bool,
    bytes: usize,
}

/// The budget had no room for a response within the wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

/// Returns the estimated size of a method's response; `None` if it is always small.
pub(super) fn estimate(path: &str) -> Option<ResponseEstimate> {
    let (_, method) = path.rsplit_once('/')?;
    let (bytes, own) = match method {
        "VerifyToken" => return None,
        "VerifyTokens" => (BATCH_BYTES, true),
        "ListApiKeys" | "ListEvents" | "ListUsers" | "ListTeams" | "ListRoles" | "ListAccounts" => (LIST_BYTES, false),
        "GetCatalogue" | "ApplyCatalogue" => (CATALOGUE_BYTES, false),
        "ServerReflectionInfo" => (DESCRIPTORS_BYTES, false),
        _ => return None,
    };
    Some(ResponseEstimate { bytes, own })
}

// === impl ByteBudget ===

impl ByteBudget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), waiting: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// Creates the budget of one peer: a part of this one.
    pub(crate) fn for_a_peer(&self) -> Arc<Self> {
        Self::new(self.max / PEER_SHARE)
    }

    /// Takes bytes if they fit. A response larger than the whole budget fits when nothing else is in use.
    fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used == 0 || used + bytes <= self.max).then_some(used + bytes);
        self.used.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    async fn take(&self, bytes: usize) {
        while !self.try_take(bytes) {
            let freed = self.freed.notified();
            // Bytes released since the last attempt would not notify this waiter.
            if self.try_take(bytes) {
                break;
            }
            freed.await;
        }
        // The next waiter may fit, too.
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

// === impl UnreadBudgets ===

impl UnreadBudgets {
    pub(crate) fn new(connection_max: usize, peer: Arc<ByteBudget>, process: Arc<ByteBudget>) -> Self {
        Self([ByteBudget::new(connection_max), peer, process])
    }

    /// Reserves the estimated size of a response.
    ///
    /// # Errors
    /// If that is not possible within [`RESERVE_WAIT`], or too many of the peer's calls wait already.
    pub(crate) async fn reserve(&self, estimate: ResponseEstimate) -> Result<ResponseReservation, BudgetExhausted> {
        let ResponseEstimate { bytes, own } = estimate;
        let mut all = pin!(take_all(self.budgets(own), bytes));
        // Most calls need not wait.
        if poll_fn(|context| Poll::Ready(all.as_mut().poll(context).is_pending())).await {
            let _waiting = WaitingCall::new(&self.0[1]).ok_or(BudgetExhausted)?;
            timeout(RESERVE_WAIT, all).await.map_err(|_| BudgetExhausted)?;
        }
        Ok(ResponseReservation { budgets: self.clone(), own, bytes })
    }

    /// Returns the budgets that a response counts in.
    fn budgets(&self, own: bool) -> &[Arc<ByteBudget>] {
        if own { &self.0[..1] } else { &self.0 }
    }

    /// Counts a response that exists already, whether or not it fits.
    pub(crate) fn count(&self, bytes: usize) -> ResponseReservation {
        let mut reserved = ResponseReservation { budgets: self.clone(), own: false, bytes: 0 };
        reserved.resize(bytes);
        reserved
    }

    /// Reports whether the connection has used up its budget.
    pub(super) fn is_over(&self) -> bool {
        self.0[0].is_over()
    }

    /// Completes when the connection is below its budget.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> + Send + use<> {
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

/// A waiting call, counted until dropped.
struct WaitingCall<'a>(&'a ByteBudget);

impl<'a> WaitingCall<'a> {
    /// Counts a call that waits; `None` if as many calls of the peer wait already as may.
    fn new(peer: &'a ByteBudget) -> Option<Self> {
        let fits = |waiting: usize| (waiting < PEER_WAITING_CALLS_MAX).then_some(waiting + 1);
        peer.waiting.fetch_update(Relaxed, Relaxed, fits).is_ok().then_some(Self(peer))
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Takes bytes from all budgets, or from none if the future is dropped on the way.
async fn take_all(budgets: &[Arc<ByteBudget>], bytes: usize) {
    let mut taken = PartialReservation { budgets, bytes, count: 0 };
    for budget in budgets {
        budget.take(bytes).await;
        taken.count += 1;
    }
    std::mem::forget(taken);
}

/// The bytes taken from some budgets so far, released on drop.
struct PartialReservation<'a> {
    budgets: &'a [Arc<ByteBudget>],
    bytes: usize,
    count: usize,
}

impl Drop for PartialReservation<'_> {
    fn drop(&mut self) {
        self.budgets[..self.count].iter().for_each(|budget| budget.give(self.bytes));
    }
}

// === impl ResponseReservation ===

impl ResponseReservation {
    /// Adjusts the reservation to the true size of the response.
    pub(super) fn resize(&mut self, bytes: usize) {
        for budget in self.budgets.budgets(self.own) {
            if bytes > self.bytes {
                budget.used.fetch_add(bytes - self.bytes, Relaxed);
            } else {
                budget.give(self.bytes - bytes);
            }
        }
        self.bytes = bytes;
    }

    /// Attaches the reservation to its message, which keeps it for as long as any part of the message is in memory.
    pub(super) fn into_message<K: Send + 'static>(mut self, message: Bytes, kept: K) -> Bytes {
        self.resize(message.len());
        Bytes::from_owner(ReservedMessage { bytes: message, _reserved: self, _kept: kept })
    }
}

impl Drop for ResponseReservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

struct ReservedMessage<K> {
    bytes: Bytes,
    _reserved: ResponseReservation,
    _kept: K,
}

impl<K> AsRef<[u8]> for ReservedMessage<K> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
#[path = "tests/unread.rs"]
mod tests;
