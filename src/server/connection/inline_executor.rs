//! Polls a connection and its new calls in one task, for as long as the calls need not wait.
//!
//! hyper hands every call to an executor, which is expected to spawn a task. But most calls are answered from the cache
//! at their first poll, so they are queued until the connection has read everything that has arrived, and then polled
//! in the connection's own task; only a call that has to wait is spawned. Creating, scheduling and waking a task costs
//! as much as a verification. The answers wake the connection's task, which then writes them all at once.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use crate::ablation::{Mechanism, without};

/// Calls polled in one poll of a connection's task. The rest are spawned, so that a client that sends many calls at
/// once does not keep the other connections of its thread waiting.
const CALLS_AT_ONCE_MAX: usize = 64;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor that queues new calls until their connection's task polls them.
#[derive(Clone, Default)]
pub(crate) struct InlineExecutor(Arc<Mutex<Vec<Call>>>);

pin_project! {
    /// A connection whose executor is an [`InlineExecutor`].
    pub(crate) struct DrivenConnection<C> {
        #[pin]
        connection: C,
        arrived: InlineExecutor,
    }

    impl<C> PinnedDrop for DrivenConnection<C> {
        fn drop(this: Pin<&mut Self>) {
            // A queued call holds its connection's executor, which holds the queue: this breaks the cycle.
            drop(this.project().arrived.take());
        }
    }
}

// === impl InlineExecutor ===

impl<F> Executor<F> for InlineExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        if without(Mechanism::Arrived) {
            return drop(tokio::spawn(call));
        }
        self.queue().push(Box::pin(call));
    }
}

impl InlineExecutor {
    fn queue(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Call> {
        mem::take(&mut *self.queue())
    }

    fn start_all(&self) {
        let mut calls = self.take();
        let room = calls.len().min(CALLS_AT_ONCE_MAX);
        calls.drain(..room).for_each(start);
        calls.drain(..).for_each(|call| drop(tokio::spawn(call)));
        // Reuses the queue's memory, unless a call has queued another meanwhile.
        let mut queue = self.queue();
        if queue.is_empty() {
            *queue = calls;
        }
    }
}

/// Polls a call, and spawns it if it has to wait. A spawned task is polled again at once, so no wake-up of the first
/// poll is lost. A panic ends its own call only, as it does in a task.
fn start(mut call: Call) {
    let mut context = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context))) {
        Ok(Poll::Pending) => drop(tokio::spawn(call)),
        // The panic hook has logged the panic already.
        Ok(Poll::Ready(())) | Err(_) => {}
    }
}

// === impl DrivenConnection ===

impl<C> DrivenConnection<C> {
    pub(crate) fn new(connection: C, arrived: InlineExecutor) -> Self {
        Self { connection, arrived }
    }

    pub(crate) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future> Future for DrivenConnection<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.connection.poll(context);
        // Also when the connection has ended: a requested change is made whether or not its answer can be delivered.
        this.arrived.start_all();
        polled
    }
}

#[cfg(test)]
#[path = "tests/inline_executor.rs"]
mod tests;
