//! The threads that bulk calls run on: fewer than those that serve, and of a lower priority, so that a processor that is
//! wanted by both is the serving threads'.

use std::{io, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::spawn_blocking,
};

use crate::verify;

/// What is added to the niceness of a bulk thread: where both want a processor, it gets a quarter.
const NICENESS: i32 = 5;

/// Running threads for bulk calls. Dropped, they end at once, with whatever still runs on them.
pub(crate) struct BulkThreads(Option<Runtime>);

impl BulkThreads {
    /// Starts half as many threads as serve.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub(crate) fn start(serving_threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(serving_threads.div_ceil(2))
            .thread_name("bulk")
            .on_thread_start(|| {
                // A system that refuses has them share as equals.
                let _ = rustix::process::nice(NICENESS);
            })
            // As a core does.
            .on_thread_park(verify::release_tables)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken by its end alone").handle().clone()
    }

    /// Ends the threads, and waits until nothing runs on them any more, but no longer than `limit`.
    pub(crate) async fn stop(mut self, limit: Duration) {
        if let Some(runtime) = self.0.take() {
            // Ends with an error if it panicked, and then nothing runs either.
            let _ = spawn_blocking(move || runtime.shutdown_timeout(limit)).await;
        }
    }
}

impl Drop for BulkThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
