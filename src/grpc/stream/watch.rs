//! Buffers a watch between its reader and its client: a small buffer, filled by its own task, so that a slow client
//! delays only itself.
//!
//! The end of a stream is sent at once, before any buffered message: when the caller's authority ends, when the client
//! leaves a message waiting for too long, when reading fails, when the server drains. A stream never ends without a
//! reason.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, unfold},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::drain::{Draining, or_draining};
use crate::{
    app::{AppError, Watched, Watching},
    grpc::{
        convert::{event::to_event, revision::to_revision},
        status::Refusal,
    },
    proto::WatchEventsResponse,
};

/// Messages that may wait for a slow client: few, since an event may be large.
const WAITING_MAX: usize = 16;
/// How long a message may wait for the client before the stream is ended.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of a watch.
pub struct WatchParts<M> {
    /// The messages for the client; ends only with an error.
    pub messages: BoxStream<'static, Result<M, Status>>,
    /// Completes with the reason when the caller's authority ends.
    pub ended: BoxFuture<'static, Status>,
    /// Checks the caller's authority before each message is handed over.
    pub allowed: Box<dyn Fn() -> BoxFuture<'static, Result<(), Status>> + Send + Sync>,
    /// How long a message may wait for the client.
    pub message_timeout: Duration,
}

/// The state that the filling task and the response stream share.
struct Buffer<M> {
    state: Mutex<WatchBufferState<M>>,
    filled: Notify,
    taken: Notify,
}

struct WatchBufferState<M> {
    waiting: VecDeque<(Instant, M)>,
    end: Option<Status>,
}

/// The buffer as the filling task holds it: a panic of the task ends the stream, too.
struct BufferFiller<M>(Arc<Buffer<M>>);

/// Aborts the filling task when the client disconnects.
struct FillTask(JoinHandle<()>);

/// Builds the response stream of a watch.
pub fn watched(
    Watching { authorization, events }: Watching,
    draining: Draining,
) -> impl Stream<Item = Result<WatchEventsResponse, Status>> + Send + 'static {
    let asked = authorization.clone();
    let ended = async move { Status::from(authorization.ended().await) };
    buffered(WatchParts {
        messages: events.map(|next| next.map(to_watched).map_err(Status::from)).boxed(),
        ended: or_draining(ended, draining).boxed(),
        allowed: Box::new(move || {
            let asked = asked.clone();
            async move { asked.check().await.map_err(Status::from) }.boxed()
        }),
        message_timeout: MESSAGE_TIMEOUT,
    })
}

fn to_watched(watched: Watched) -> WatchEventsResponse {
    WatchEventsResponse { event: watched.event.map(to_event), head: Some(to_revision(watched.head)) }
}

/// Builds a buffered stream, and starts the task that fills its buffer.
pub fn buffered<M: Send + 'static>(parts: WatchParts<M>) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
    let WatchParts { messages, ended, allowed, message_timeout } = parts;
    let state = Mutex::new(WatchBufferState { waiting: VecDeque::with_capacity(WAITING_MAX), end: None });
    let buffer = Arc::new(Buffer { state, filled: Notify::new(), taken: Notify::new() });
    let filler = BufferFiller(buffer.clone());
    let filling = FillTask(tokio::spawn(async move {
        let status = filler.fill(messages, ended, message_timeout).await;
        filler.0.end(status);
    }));
    unfold(Some((buffer, allowed, filling)), |open| async move {
        let (buffer, allowed, filling) = open?;
        match buffer.next(&*allowed).await {
            Ok(message) => Some((Ok(message), Some((buffer, allowed, filling)))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

// === impl BufferFiller ===

impl<M: Send> BufferFiller<M> {
    /// Fills the buffer until the stream is to end; returns the reason.
    async fn fill(
        &self,
        mut messages: BoxStream<'static, Result<M, Status>>,
        mut ended: BoxFuture<'static, Status>,
        message_timeout: Duration,
    ) -> Status {
        loop {
            let (count, oldest) = self.0.waiting();
            let cut_off = oldest.map(|since| since + message_timeout);
            if cut_off.is_some_and(|cut_off| cut_off <= Instant::now()) {
                return Refusal::slow_consumer().into();
            }
            tokio::select! {
                biased;
                status = &mut ended => return status,
                // Checked again in the next round: the client may have taken messages meanwhile.
                () = sleep_until(cut_off.unwrap_or_else(Instant::now)), if cut_off.is_some() => {}
                () = self.0.taken.notified(), if count >= WAITING_MAX => {}
                next = messages.next(), if count < WAITING_MAX => match next {
                    Some(Ok(message)) => self.0.push(message),
                    Some(Err(status)) => return status,
                    None => return AppError::Internal("a watch ended by itself").into(),
                },
            }
        }
    }
}

impl<M> Drop for BufferFiller<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(AppError::Internal("the task of a watch panicked").into());
        }
    }
}

impl Drop for FillTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Buffer ===

impl<M> Buffer<M> {
    fn state(&self) -> MutexGuard<'_, WatchBufferState<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many messages wait, and since when the oldest has.
    fn waiting(&self) -> (usize, Option<Instant>) {
        let state = self.state();
        (state.waiting.len(), state.waiting.front().map(|(since, _)| *since))
    }

    fn push(&self, message: M) {
        self.state().waiting.push_back((Instant::now(), message));
        self.filled.notify_one();
    }

    /// Ends the stream. The first reason counts; buffered messages are dropped.
    fn end(&self, status: Status) {
        let mut state = self.state();
        state.end.get_or_insert(status);
        state.waiting.clear();
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for the next message that may be sent, or returns how the stream ends.
    async fn next(
        &self,
        allowed: &(dyn Fn() -> BoxFuture<'static, Result<(), Status>> + Send + Sync),
    ) -> Result<M, Status> {
        let message = loop {
            if let Some(message) = self.take()? {
                break message;
            }
            self.filled.notified().await;
        };
        allowed().await?;
        self.check_open()?;
        Ok(message)
    }

    fn take(&self) -> Result<Option<M>, Status> {
        self.check_open()?;
        let taken = self.state().waiting.pop_front().map(|(_, message)| message);
        self.taken.notify_one();
        Ok(taken)
    }

    fn check_open(&self) -> Result<(), Status> {
        self.state().end.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
