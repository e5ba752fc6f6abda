//! The cores that calls are served on: each a thread with a single-threaded runtime of its own.
//!
//! A connection belongs to one core from its first byte to its last: its socket is registered with that core's
//! reactor and its calls run there, so that no call is handed from thread to thread, wakes another or takes a lock that
//! a neighbour holds. The price is that work is never taken over from a busy core: so connections are dealt evenly,
//! which the kernel (SO_REUSEPORT deals by a hash) does not do for the few long-lived ones that gRPC clients hold.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{runtime, sync::oneshot};

use crate::verify;

/// Running cores. Dropped, they end at once, with whatever still runs on them.
pub(crate) struct ServingThreads(Vec<OwnedThread>);

struct OwnedThread {
    thread_handle: ServingThread,
    /// Dropped, it ends the thread.
    stop: oneshot::Sender<()>,
    /// Completes when the thread's runtime is no more.
    ended: oneshot::Receiver<()>,
}

/// A core, for whoever gives it work.
#[derive(Clone)]
pub(crate) struct ServingThread {
    /// Its runtime.
    pub runtime: runtime::Handle,
    open: Arc<AtomicUsize>,
}

/// A connection that a core has; counted until dropped.
pub(crate) struct ConnectionCount(Arc<AtomicUsize>);

/// Deals connections to cores.
pub(crate) struct ConnectionBalancer {
    /// Whose turn it is among equals.
    turn: usize,
}

// === impl Cores ===

impl ServingThreads {
    /// Starts so many threads.
    ///
    /// # Errors
    /// If the system gives no more threads or file descriptors; those already started end.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(OwnedThread::start).collect::<io::Result<_>>().map(Self)
    }

    pub(crate) fn all(&self) -> Vec<ServingThread> {
        self.0.iter().map(|thread| thread.thread_handle.clone()).collect()
    }

    /// Ends the threads, and waits until nothing runs on them any more.
    pub(crate) async fn stop(self) {
        let ended: Vec<_> = self.0.into_iter().map(|thread| (drop(thread.stop), thread.ended).1).collect();
        for ended in ended {
            // A sender that is gone means the same.
            let _ = ended.await;
        }
    }
}

impl OwnedThread {
    fn start(index: usize) -> io::Result<Self> {
        // A core that sleeps keeps no tables alive that the others have replaced.
        let runtime =
            runtime::Builder::new_current_thread().enable_all().on_thread_park(verify::release_tables).build()?;
        let thread_handle = ServingThread { runtime: runtime.handle().clone(), open: Arc::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let (has_ended, ended) = oneshot::channel();
        let run = move || {
            // Ends with an error when the sender is dropped, which is the signal.
            let _ = runtime.block_on(stopped);
            // Without waiting for a look-up of names or a file that blocks.
            runtime.shutdown_background();
            let _ = has_ended.send(());
        };
        thread::Builder::new().name(format!("serving-{index}")).spawn(run)?;
        Ok(Self { thread_handle, stop, ended })
    }
}

// === impl Core ===

impl ServingThread {
    /// Takes a place for a connection.
    pub(crate) fn count_connection(&self) -> ConnectionCount {
        self.open.fetch_add(1, Ordering::Relaxed);
        ConnectionCount(self.open.clone())
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Dealer ===

impl ConnectionBalancer {
    pub(crate) fn new() -> Self {
        Self { turn: 0 }
    }

    /// The place in `cores` of the one that has the fewest connections; equals take turns, or the first would have
    /// every connection that is opened alone.
    pub(crate) fn next(&mut self, threads: &[ServingThread]) -> usize {
        let in_turn = (0..threads.len()).map(|step| (self.turn + step) % threads.len());
        let fewest = in_turn.min_by_key(|index| threads[*index].open()).expect("there is at least one thread_handle");
        self.turn = fewest + 1;
        fewest
    }
}

#[cfg(test)]
#[path = "serving_tests.rs"]
mod tests;
