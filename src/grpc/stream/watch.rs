//! Between what is read for a watcher and what its client takes: a small buffer, filled by a task of its
//! own, so that a slow consumer holds up nobody but itself.
//!
//! How a stream ends is known at once, and said before anything that still waits: when the caller's
//! authority ended, when the consumer let something wait too long, when reading failed, when the server
//! stops. It never ends without a reason.

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
    app::{Error, Watched, Watching},
    grpc::{
        convert::{event::to_event, revision::to_revision},
        status::Refusal,
    },
    proto::WatchEventsResponse,
};

/// Messages that may wait for a slow consumer: few, since an event may be large.
const WAITING_MAX: usize = 16;
/// How long a message may wait for the consumer before that is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a stream is made of.
pub struct Pacing<M> {
    /// What the client is to be sent; it never ends but by an error.
    pub messages: BoxStream<'static, Result<M, Status>>,
    /// Completes with the reason once the caller may be sent no more.
    pub ended: BoxFuture<'static, Status>,
    /// Asked before each message is handed over.
    pub allowed: Box<dyn Fn() -> BoxFuture<'static, Result<(), Status>> + Send + Sync>,
    /// How long a message may wait for the consumer.
    pub patience: Duration,
}

/// What the task and the stream share.
struct Buffer<M> {
    state: Mutex<State<M>>,
    filled: Notify,
    taken: Notify,
}

struct State<M> {
    waiting: VecDeque<(Instant, M)>,
    end: Option<Status>,
}

/// What the task holds: if it panics, the stream still ends.
struct Filler<M>(Arc<Buffer<M>>);

/// Ends the task when the client has gone.
struct Filling(JoinHandle<()>);

/// A watch as the client gets it.
pub fn watched(
    Watching { warrant, events }: Watching,
    draining: Draining,
) -> impl Stream<Item = Result<WatchEventsResponse, Status>> + Send + 'static {
    let asked = warrant.clone();
    let ended = async move { Status::from(warrant.ended().await) };
    paced(Pacing {
        messages: events.map(|next| next.map(to_watched).map_err(Status::from)).boxed(),
        ended: or_draining(ended, draining).boxed(),
        allowed: Box::new(move || {
            let asked = asked.clone();
            async move { asked.check().await.map_err(Status::from) }.boxed()
        }),
        patience: PATIENCE,
    })
}

fn to_watched(watched: Watched) -> WatchEventsResponse {
    WatchEventsResponse { event: watched.event.map(to_event), head: Some(to_revision(watched.head)) }
}

/// Runs it.
pub fn paced<M: Send + 'static>(parts: Pacing<M>) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
    let Pacing { messages, ended, allowed, patience } = parts;
    let state = Mutex::new(State { waiting: VecDeque::with_capacity(WAITING_MAX), end: None });
    let buffer = Arc::new(Buffer { state, filled: Notify::new(), taken: Notify::new() });
    let filler = Filler(buffer.clone());
    let filling = Filling(tokio::spawn(async move {
        let status = filler.fill(messages, ended, patience).await;
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

// === impl Filler ===

impl<M: Send> Filler<M> {
    /// Fills the buffer until the stream is to end.
    async fn fill(
        &self,
        mut messages: BoxStream<'static, Result<M, Status>>,
        mut ended: BoxFuture<'static, Status>,
        patience: Duration,
    ) -> Status {
        loop {
            let (count, oldest) = self.0.waiting();
            let cut_off = oldest.map(|since| since + patience);
            if cut_off.is_some_and(|cut_off| cut_off <= Instant::now()) {
                return Refusal::slow_consumer().into();
            }
            tokio::select! {
                biased;
                status = &mut ended => return status,
                // Looked at again: the consumer may have taken some meanwhile.
                () = sleep_until(cut_off.unwrap_or_else(Instant::now)), if cut_off.is_some() => {}
                () = self.0.taken.notified(), if count >= WAITING_MAX => {}
                next = messages.next(), if count < WAITING_MAX => match next {
                    Some(Ok(message)) => self.0.push(message),
                    Some(Err(status)) => return status,
                    None => return Error::Internal("a watch ended by itself").into(),
                },
            }
        }
    }
}

impl<M> Drop for Filler<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Error::Internal("the task of a watch panicked").into());
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Buffer ===

impl<M> Buffer<M> {
    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages wait, and since when the oldest does.
    fn waiting(&self) -> (usize, Option<Instant>) {
        let state = self.state();
        (state.waiting.len(), state.waiting.front().map(|(since, _)| *since))
    }

    fn push(&self, message: M) {
        self.state().waiting.push_back((Instant::now(), message));
        self.filled.notify_one();
    }

    /// The first reason counts; what still waits is never sent.
    fn end(&self, status: Status) {
        let mut state = self.state();
        state.end.get_or_insert(status);
        state.waiting.clear();
        drop(state);
        self.filled.notify_one();
    }

    /// The next message that may be sent, or how the stream ends.
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
        self.go_on()?;
        Ok(message)
    }

    fn take(&self) -> Result<Option<M>, Status> {
        self.go_on()?;
        let taken = self.state().waiting.pop_front().map(|(_, message)| message);
        self.taken.notify_one();
        Ok(taken)
    }

    fn go_on(&self) -> Result<(), Status> {
        self.state().end.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
