//! Bodies: what the door answers with, what it refuses with, and the one message that it hands on.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::grpc::{door::slots::Slot, status::Refusal};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// An answer's body: a message that is ready, or the body that a service made.
pub struct DoorBody<B> {
    content: Content<B>,
    /// When a stream of answers ends, if its caller said.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The place that a call without a caller takes while it is open.
    _slot: Option<Slot>,
}

enum Content<B> {
    /// A message, then the status OK.
    Message(Bytes),
    /// The message was read; the status is left.
    Status,
    /// Read to its end.
    Ended,
    /// A service's.
    Passed(B),
}

/// What is answered with a status alone.
pub struct Refused {
    http: StatusCode,
    status: Status,
    encoding: bool,
}

/// A body of one frame, without trailers.
pub struct Whole(Option<Bytes>);

// === impl DoorBody ===

impl<B> DoorBody<B> {
    fn of(content: Content<B>) -> Self {
        Self { content, deadline: None, _slot: None }
    }

    /// An answer of one message.
    pub fn message(message: Bytes) -> Response<Self> {
        let mut response = Response::new(Self::of(Content::Message(message)));
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        response
    }

    /// A service's answer, which ends at `deadline`.
    pub fn passed(body: B, deadline: Option<Instant>, slot: Option<Slot>) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Self { content: Content::Passed(body), deadline, _slot: slot }
    }
}

impl<B> Default for DoorBody<B> {
    fn default() -> Self {
        Self::of(Content::Ended)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for DoorBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Before the service: one that always has something to say would never end.
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            // With all that the service holds for it.
            self.content = Content::Ended;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&Refusal::deadline_exceeded().into())))));
        }
        match &mut self.content {
            Content::Passed(body) => Pin::new(body).poll_frame(context),
            Content::Ended => Poll::Ready(None),
            Content::Message(message) => {
                let message = std::mem::take(message);
                self.content = Content::Status;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Content::Status => {
                self.content = Content::Ended;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Passed(body) => body.is_end_stream(),
            Content::Ended => true,
            Content::Message(_) | Content::Status => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Passed(body) => body.size_hint(),
            Content::Message(message) => SizeHint::with_exact(message.len() as u64),
            Content::Status | Content::Ended => SizeHint::with_exact(0),
        }
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Cannot fail: the message is percent-encoded and the details are base64.
    _ = status.add_header(&mut trailers);
    trailers
}

// === impl Refused ===

impl Refused {
    /// With an HTTP status of its own: for what is no gRPC call, and may come from what speaks none. A gRPC client
    /// reads the rest.
    pub fn as_http(http: StatusCode, refusal: Refusal) -> Self {
        Self { http, ..refusal.into() }
    }

    /// With the encodings that there are.
    pub fn of_encoding(refusal: Refusal) -> Self {
        Self { encoding: true, ..refusal.into() }
    }

    /// The answer.
    pub fn into_response<B>(self) -> Response<DoorBody<B>> {
        let Self { http, status, encoding } = self;
        let mut response: Response<DoorBody<B>> = status.into_http();
        *response.status_mut() = http;
        if http == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        if encoding {
            response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        }
        response
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { http: StatusCode::OK, status, encoding: false }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Status::from(refusal).into()
    }
}

impl From<crate::app::Error> for Refused {
    fn from(error: crate::app::Error) -> Self {
        Status::from(error).into()
    }
}

// === impl Whole ===

impl Whole {
    /// A frame.
    pub fn new(frame: Bytes) -> Self {
        Self(Some(frame))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |frame| frame.len() as u64))
    }
}
