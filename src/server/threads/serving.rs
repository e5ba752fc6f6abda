//! Runs calls on serving threads, each with its own single-threaded runtime.
//!
//! A connection belongs to one thread from its first byte to its last: its socket is registered with that thread's
//! reactor and its calls run there, so that no call is handed between threads, wakes another thread or contends for a
//! lock. The price is that work is never stolen from a busy thread: so connections are balanced evenly, which the
//! kernel (SO_REUSEPORT balances by a hash) does not do for the few long-lived connections of gRPC clients.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{runtime, sync::oneshot};

/// The serving threads. Dropping it ends them at once, with everything that still runs on them.
pub(crate) struct ServingThreads(Vec<OwnedThread>);

struct OwnedThread {
    thread_handle: ServingThread,
    /// Dropping it ends the thread.
    stop: oneshot::Sender<()>,
    /// Completes when the thread's runtime has ended.
    ended: oneshot::Receiver<()>,
}

/// A handle to a serving thread, to give it connections.
#[derive(Clone)]
pub(crate) struct ServingThread {
    /// The thread's runtime.
    pub runtime: runtime::Handle,
    open: Arc<AtomicUsize>,
}

/// A connection of a serving thread, counted until dropped.
pub(crate) struct ConnectionCount(Arc<AtomicUsize>);

/// Picks the serving thread of each new connection: the one with the fewest.
pub(crate) struct ConnectionBalancer {
    /// The thread that is next among equals.
    turn: usize,
}

// === impl ServingThreads ===

impl ServingThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// If the system refuses more threads or file descriptors; threads that were started end.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(OwnedThread::start).collect::<io::Result<_>>().map(Self)
    }

    pub(crate) fn all(&self) -> Vec<ServingThread> {
        self.0.iter().map(|thread| thread.thread_handle.clone()).collect()
    }

    /// Ends the threads, and waits until nothing runs on them.
    pub(crate) async fn stop(self) {
        let ended: Vec<_> = self.0.into_iter().map(|thread| (drop(thread.stop), thread.ended).1).collect();
        for ended in ended {
            // A dropped sender means the same.
            let _ = ended.await;
        }
    }
}

impl OwnedThread {
    fn start(index: usize) -> io::Result<Self> {
        // A parked thread releases cached tables that other threads have replaced.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let thread_handle = ServingThread { runtime: runtime.handle().clone(), open: Arc::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let (has_ended, ended) = oneshot::channel();
        let run = move || {
            // Ends with an error when the sender is dropped, which is the signal.
            let _ = runtime.block_on(stopped);
            // Does not wait for blocking name look-ups or files.
            runtime.shutdown_background();
            let _ = has_ended.send(());
        };
        thread::Builder::new().name(format!("serving-{index}")).spawn(run)?;
        Ok(Self { thread_handle, stop, ended })
    }
}

// === impl ServingThread ===

impl ServingThread {
    /// Counts a new connection.
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

// === impl ConnectionBalancer ===

impl ConnectionBalancer {
    pub(crate) fn new() -> Self {
        Self { turn: 0 }
    }

    /// Returns the index of the thread with the fewest connections. Equals take turns: otherwise the first would get
    /// every connection that is the only one at its time.
    pub(crate) fn next(&mut self, threads: &[ServingThread]) -> usize {
        let in_turn = (0..threads.len()).map(|step| (self.turn + step) % threads.len());
        let fewest = in_turn.min_by_key(|index| threads[*index].open()).expect("there is at least one thread");
        self.turn = fewest + 1;
        fewest
    }
}

#[cfg(test)]
#[path = "serving_tests.rs"]
mod tests;
