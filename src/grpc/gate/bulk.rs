//! Runs bulk calls on their own threads, from decoding the request to encoding the response.
//!
//! A page of a thousand keys takes tens of milliseconds to read and to encode. On a serving thread, the verifications
//! of all its connections would wait for that long.

use std::{
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::{runtime::Handle, task::JoinSet};
use tracing::Instrument;

use crate::grpc::status::Refusal;

/// A body whose first frame may have been read already.
pub struct PeekedBody<B: Body> {
    first: Option<Result<Frame<B::Data>, B::Error>>,
    rest: B,
}

/// Runs a unary call on the bulk runtime until its response is encoded. Dropping the future cancels the call.
///
/// # Errors
/// [`Refusal::draining`] if the runtime has stopped.
pub async fn run<F, B>(runtime: &Handle, call: F) -> Result<Response<PeekedBody<B>>, Refusal>
where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Send> + Unpin + Send + 'static,
{
    let whole = async move {
        let (head, mut rest) = call.await.into_parts();
        let first = if rest.is_end_stream() {
            None
        } else {
            std::future::poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await
        };
        Response::from_parts(head, PeekedBody { first, rest })
    };
    // A set of one task: dropping it aborts the task.
    let mut calls = JoinSet::new();
    calls.spawn_on(whole.in_current_span(), runtime);
    match calls.join_next().await {
        Some(Ok(response)) => Ok(response),
        // A panic ends its own call only, as on a serving thread.
        Some(Err(error)) => {
            Err(error.try_into_panic().map_or_else(|_| Refusal::draining(), |panic| resume_unwind(panic)))
        }
        None => Err(Refusal::draining()),
    }
}

// === impl PeekedBody ===

impl<B: Body> From<B> for PeekedBody<B> {
    /// Wraps a body of which no frame was read yet.
    fn from(rest: B) -> Self {
        Self { first: None, rest }
    }
}

impl<B> Body for PeekedBody<B>
where
    B: Body<Data = Bytes, Error: Unpin> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() { SizeHint::default() } else { self.rest.size_hint() }
    }
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
