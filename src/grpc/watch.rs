//! Between the log and a watcher: a bounded buffer, so that a slow consumer holds up nobody but itself.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    convert::{event::to_event, revision::to_revision},
    status::Refusal,
};
use crate::{
    app::{Error, Watched},
    proto::WatchEventsResponse,
};

/// Messages that may wait for a slow consumer.
const WATCH_BUFFER: usize = 1_000;
/// How long a consumer may take none before it is cut off.
const CONSUMER_PATIENCE: Duration = Duration::from_secs(10);

/// Reads ahead of the consumer by a bounded buffer; one that takes nothing for long is cut off and can
/// resume after the last event it got.
pub fn paced(
    watched: impl Stream<Item = Result<Watched, Error>> + Send + 'static,
) -> impl Stream<Item = Result<WatchEventsResponse, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(WATCH_BUFFER);
    let cut_off = Arc::new(AtomicBool::new(false));
    let flag = cut_off.clone();
    tokio::spawn(async move {
        let mut watched = pin!(watched);
        loop {
            let next = tokio::select! {
                next = watched.next() => next,
                // The client has gone.
                () = sender.closed() => return,
            };
            let Some(next) = next else { return };
            let ended = next.is_err();
            let message = next.map(to_watched).map_err(Status::from);
            match sender.send_timeout(message, CONSUMER_PATIENCE).await {
                Ok(()) if !ended => {}
                Ok(()) | Err(SendTimeoutError::Closed(_)) => return,
                Err(SendTimeoutError::Timeout(_)) => return flag.store(true, Ordering::Release),
            }
        }
    });
    let end = stream::once(async move { cut_off.load(Ordering::Acquire) })
        .filter_map(|cut_off| std::future::ready(cut_off.then(|| Err(Refusal::slow_consumer().into()))));
    ReceiverStream::new(receiver).chain(end)
}

fn to_watched(watched: Watched) -> WatchEventsResponse {
    WatchEventsResponse { event: watched.event.map(to_event), head: Some(to_revision(watched.head)) }
}
