//! Reads and discards the rest of a request body that was answered before its end.
//!
//! A call that is refused for its headers is answered while its message is still being sent. If its body were dropped,
//! the transport would forget the stream, and count what still arrives for it as an error of the client; after a
//! thousand of those it cuts the connection, with all calls that a proxy has sent on it.

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

/// How long the rest of a body is awaited: a client that has the response ends it within a round trip.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes of the rest are read: a stream's window, since no client sends more before it has the response.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
/// How many bodies may be discarded in the background at once; those beyond are dropped.
const DISCARDING_MAX: usize = 1_024;

static DISCARDING: AtomicUsize = AtomicUsize::new(0);

/// A request body whose rest is read and discarded if it is dropped before its end.
pub struct DiscardOnDrop<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// `None` once the end was read.
    body: Option<B>,
}

/// Permission to discard a body in the background, released on drop.
struct DiscardPermit;

// === impl DiscardOnDrop ===

impl<B> From<B> for DiscardOnDrop<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn from(body: B) -> Self {
        Self { body: Some(body) }
    }
}

impl<B> Body for DiscardOnDrop<B>
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

impl<B> Drop for DiscardOnDrop<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let mut rest = Box::pin(discard(body));
        // Usually the rest has arrived already, or the client has gone.
        if rest.as_mut().now_or_never().is_some() {
            return;
        }
        if let (Ok(runtime), Some(permit)) = (Handle::try_current(), DiscardPermit::take()) {
            runtime.spawn(async move {
                let _place = permit;
                // After the timeout the body is dropped as it would have been without this.
                let _ = timeout(DISCARD_TIMEOUT, rest).await;
            });
        }
    }
}

/// Reads a body to its end, or up to more bytes than a client sends once it has the response.
async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut bytes = 0;
    while bytes <= DISCARDED_BYTES_MAX
        && !body.is_end_stream()
        && let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

// === impl DiscardPermit ===

impl DiscardPermit {
    /// Takes a permit; `None` if all are in use.
    fn take() -> Option<Self> {
        let permit = Self;
        // The drop undoes the increment if it was one too many.
        (DISCARDING.fetch_add(1, Relaxed) < DISCARDING_MAX).then_some(permit)
    }
}

impl Drop for DiscardPermit {
    fn drop(&mut self) {
        DISCARDING.fetch_sub(1, Relaxed);
    }
}
