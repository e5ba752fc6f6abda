//! Reads on what is left of a request that was answered before its end, and forgets it.
//!
//! A call that is refused for its headers is answered while its message is on its way. Dropped, its stream is forgotten,
//! and what still arrives on it is an error of the client to the transport, which cuts a connection with a thousand of
//! those, and with it the calls of others that a proxy has sent beside them.

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use http_body::{Body, Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::{runtime::Handle, time::timeout};

/// How long the rest of a request is waited for: a client that has the answer ends it within a round trip.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of it that are read: a stream's window, so no client sends more before it has the answer.
const BYTES_MAX: usize = 256 << 10;
/// Requests of the process whose rest is waited for; those beyond are dropped.
const REQUESTS_MAX: usize = 1_024;

static REQUESTS: AtomicUsize = AtomicUsize::new(0);

/// A request's body, whose rest is read if it is dropped before its end.
pub struct Remainder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// `None` once its end was read.
    body: Option<B>,
}

/// A request whose rest is waited for, counted until dropped.
struct Place;

// === impl Remainder ===

impl<B> From<B> for Remainder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn from(body: B) -> Self {
        Self { body: Some(body) }
    }
}

impl<B> Body for Remainder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for Remainder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let mut rest = Box::pin(read_on(body));
        // Most of it is there, or its client has left.
        if rest.as_mut().now_or_never().is_some() {
            return;
        }
        if let (Ok(runtime), Some(place)) = (Handle::try_current(), Place::take()) {
            runtime.spawn(async move {
                let _place = place;
                // Late, it is dropped as it would have been.
                let _ = timeout(PATIENCE, rest).await;
            });
        }
    }
}

/// Reads a body to its end, or more of it than any client sends that has its answer.
async fn read_on<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut bytes = 0;
    while bytes <= BYTES_MAX
        && !body.is_end_stream()
        && let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

// === impl Place ===

impl Place {
    /// `None` if all are taken.
    fn take() -> Option<Self> {
        let place = Self;
        // It is given back at once if it was one too many.
        (REQUESTS.fetch_add(1, Relaxed) < REQUESTS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        REQUESTS.fetch_sub(1, Relaxed);
    }
}
