//! Runs bulk calls on their own threads: fewer than the serving threads and with a lower priority, so that serving
//! threads win when both want a processor.

use std::{io, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::spawn_blocking,
};

/// The nice value of bulk threads: against a serving thread, they get a quarter of a processor.
const NICENESS: i32 = 5;

/// The bulk threads. Dropping it ends them at once, with everything that still runs on them.
pub(crate) struct BulkThreads(Option<Runtime>);

impl BulkThreads {
    /// Starts half as many threads as there are serving threads.
    ///
    /// # Errors
    /// If the system refuses more threads.
    pub(crate) fn start(serving_threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(serving_threads.div_ceil(2))
            .thread_name("bulk")
            .on_thread_start(|| {
                // A system that refuses leaves both at the same priority.
                let _ = rustix::process::nice(NICENESS);
            })
            // As on serving threads.
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken by its end alone").handle().clone()
    }

    /// Ends the threads, and waits until nothing runs on them, but no longer than `limit`.
    pub(crate) async fn stop(mut self, limit: Duration) {
        if let Some(runtime) = self.0.take() {
            // The task fails only if it panicked, and then nothing runs either.
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
