//! Runs bulk calls on threads of their own, from the decoding of their message to the encoding of their answer.
//!
//! A page of a thousand keys takes tens of milliseconds to read and to encode. On a serving thread each verification
//! of every connection there would wait for that long.

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

/// A body whose first frame may be there already.
pub struct Begun<B: Body> {
    first: Option<Result<Frame<B::Data>, B::Error>>,
    rest: B,
}

/// Runs a unary call on the runtime of bulk calls, from where its answer comes back encoded. Dropped, it ends the call.
///
/// # Errors
/// [`Refusal::draining`] if the runtime has stopped.
pub async fn run<F, B>(runtime: &Handle, call: F) -> Result<Response<Begun<B>>, Refusal>
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
        Response::from_parts(head, Begun { first, rest })
    };
    // A set of one: dropped, it ends what is in it.
    let mut calls = JoinSet::new();
    calls.spawn_on(whole.in_current_span(), runtime);
    match calls.join_next().await {
        Some(Ok(response)) => Ok(response),
        // As on a serving thread: a panic ends its own call.
        Some(Err(error)) => {
            Err(error.try_into_panic().map_or_else(|_| Refusal::draining(), |panic| resume_unwind(panic)))
        }
        None => Err(Refusal::draining()),
    }
}

// === impl Begun ===

impl<B: Body> From<B> for Begun<B> {
    /// Of which nothing is there yet.
    fn from(rest: B) -> Self {
        Self { first: None, rest }
    }
}

impl<B> Body for Begun<B>
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
