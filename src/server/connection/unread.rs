//! Bytes of answers that clients have not read: bounded for each connection, each peer and the process.
//!
//! HTTP/2 lets a client ask for many answers and read none. A method whose answers may be large reserves what one may
//! take before it runs; when the answer is there, the reservation becomes its true size, and it ends when the last byte
//! has left for the socket. All other answers are small, and pay for a look at their path.

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

/// How long a call waits until it may run.
const RESERVE_WAIT: Duration = Duration::from_secs(5);
/// How many calls of one peer wait at a time, as many as a connection may have; what comes beyond is refused at once.
const PEER_WAITING_CALLS_MAX: usize = 1_024;
/// What no peer may have of the process's share: so three that read nothing do not shut out a fourth.
const PEER_SHARE: usize = 4;

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
pub(crate) struct ResponseEstimate {
    bytes: usize,
    /// Whether it is only the connection's: a batch of verifications touches nothing that other threads write to.
    own: bool,
}

/// Bytes that may be in use at one time.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    max: usize,
    used: AtomicUsize,
    /// Calls that wait for room, counted in their peer's budget.
    waiting: AtomicUsize,
    freed: Notify,
}

/// The budgets that a connection's answers are in: its own first, then its peer's and the process's.
#[derive(Clone, Debug)]
pub(crate) struct UnreadBudgets([Arc<ByteBudget>; 3]);

/// Bytes of an answer, until dropped.
#[derive(Debug)]
pub(crate) struct ResponseReservation {
    budgets: UnreadBudgets,
    own: bool,
    bytes: usize,
}

/// There is no room for an answer, and was none for a while.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

/// What an answer of a method may take; `None` if that is little.
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

// === impl Budget ===

impl ByteBudget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), waiting: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// What one peer may have of this.
    pub(crate) fn for_a_peer(&self) -> Arc<Self> {
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

// === impl UnreadBudgets ===

impl UnreadBudgets {
    pub(crate) fn new(connection_max: usize, peer: Arc<ByteBudget>, process: Arc<ByteBudget>) -> Self {
        Self([ByteBudget::new(connection_max), peer, process])
    }

    /// Reserves what an answer may take.
    ///
    /// # Errors
    /// If that is not possible for [`RESERVE_WAIT`], or too many of the peer's calls wait already.
    pub(crate) async fn reserve(&self, estimate: ResponseEstimate) -> Result<ResponseReservation, BudgetExhausted> {
        let ResponseEstimate { bytes, own } = estimate;
        let mut all = pin!(take_all(self.budgets(own), bytes));
        // Most need not wait.
        if poll_fn(|context| Poll::Ready(all.as_mut().poll(context).is_pending())).await {
            let _waiting = WaitingCall::new(&self.0[1]).ok_or(BudgetExhausted)?;
            timeout(RESERVE_WAIT, all).await.map_err(|_| BudgetExhausted)?;
        }
        Ok(ResponseReservation { budgets: self.clone(), own, bytes })
    }

    /// The budgets that an answer is in.
    fn budgets(&self, own: bool) -> &[Arc<ByteBudget>] {
        if own { &self.0[..1] } else { &self.0 }
    }

    /// Counts an answer that is there already, whether or not there is room for it.
    pub(crate) fn count(&self, bytes: usize) -> ResponseReservation {
        let mut reserved = ResponseReservation { budgets: self.clone(), own: false, bytes: 0 };
        reserved.resize(bytes);
        reserved
    }

    /// Whether the connection has all that it may have.
    pub(super) fn is_over(&self) -> bool {
        self.0[0].is_over()
    }

    /// Completes when the connection may have given something back.
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

/// A call that waits, counted until dropped.
struct WaitingCall<'a>(&'a ByteBudget);

impl<'a> WaitingCall<'a> {
    /// `None` if as many of the peer wait as may.
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

/// Takes of each budget, or of none: what is taken is given back if this is dropped on the way.
async fn take_all(budgets: &[Arc<ByteBudget>], bytes: usize) {
    let mut taken = PartialReservation { budgets, bytes, count: 0 };
    for budget in budgets {
        budget.take(bytes).await;
        taken.count += 1;
    }
    std::mem::forget(taken);
}

/// What was taken so far of several budgets, given back if dropped.
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

// === impl Reserved ===

impl ResponseReservation {
    /// Makes it what the answer really takes.
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

    /// The message that it is for, which keeps it for as long as any part of the message is in memory.
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
