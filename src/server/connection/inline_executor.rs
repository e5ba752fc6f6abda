//! A connection together with the calls that have arrived on it, in one task for as long as they need not wait.
//!
//! hyper hands every call to an executor, which is expected to make a task of it. But most calls are answered from
//! memory the first time that they are polled, so here they wait until the connection has taken all that has come in,
//! and are polled then and there; only a call that has to wait becomes a task. Making, scheduling and waking one costs
//! as much as a verification does. The answers wake the connection's task, which then writes them all at once.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use crate::{
    ablation::{Mechanism, without},
    server::poll_clock::PollTimer,
};

/// Calls polled in one turn of a connection's task; the rest become tasks, so that a client that sends many at once
/// does not keep the other connections of its core waiting.
const CALLS_AT_ONCE_MAX: usize = 64;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls that have arrived and were not polled yet.
#[derive(Clone, Default)]
pub(crate) struct InlineExecutor(Arc<Mutex<Vec<Call>>>);

pin_project! {
    /// A connection whose executor is [`Arrived`].
    pub(crate) struct DrivenConnection<C> {
        #[pin]
        connection: C,
        arrived: InlineExecutor,
    }

    impl<C> PinnedDrop for DrivenConnection<C> {
        fn drop(this: Pin<&mut Self>) {
            // A call holds its connection's executor, and so these would hold themselves.
            drop(this.project().arrived.take());
        }
    }
}

// === impl Arrived ===

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
        // Its room serves again, unless a call has brought another meanwhile.
        let mut queue = self.queue();
        if queue.is_empty() {
            *queue = calls;
        }
    }
}

/// Polls a call, and makes a task of it if it has to wait. A task is polled again at once: so whatever the first poll
/// would have woken is not missed. A panic ends its own call only, as it does in a task.
fn start(mut call: Call) {
    let mut context = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context))) {
        Ok(Poll::Pending) => drop(tokio::spawn(call)),
        // The panic's own message was logged where panics are.
        Ok(Poll::Ready(())) | Err(_) => {}
    }
}

// === impl Driven ===

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
        PollTimer::begin_poll();
        let this = self.project();
        let polled = this.connection.poll(context);
        // Also when the connection has ended: a change that was asked for is made, whether or not its answer arrives.
        this.arrived.start_all();
        polled
    }
}

#[cfg(test)]
#[path = "tests/inline_executor.rs"]
mod tests;
