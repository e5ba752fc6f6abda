//! The bodies that the gate answers with: a ready message, a service's body with its deadline, a status; and the body
//! with the one message that it forwards.

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

use crate::grpc::{gate::unauthenticated_calls::UnauthenticatedCallPermit, status::Refusal};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// The body of a response: a message that is ready, or a service's own body.
pub struct GateBody<B> {
    content: Content<B>,
    /// Ends a response stream at its caller's deadline.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Held while an unauthenticated call is open.
    _permit: Option<UnauthenticatedCallPermit>,
}

enum Content<B> {
    /// A message, to be followed by the status OK.
    Message(Bytes),
    /// The message was read; the status OK is next.
    Status,
    /// Everything was read.
    Ended,
    /// A service's body.
    Forwarded(B),
}

/// A response without a message: a status and its headers.
pub struct ErrorResponse {
    http: StatusCode,
    status: Status,
    encoding: bool,
}

/// A body of one data frame, without trailers.
pub struct SingleFrame(Option<Bytes>);

// === impl GateBody ===

impl<B> GateBody<B> {
    fn of(content: Content<B>) -> Self {
        Self { content, deadline: None, _permit: None }
    }

    /// Makes a response of one message and the status OK.
    pub fn message(message: Bytes) -> Response<Self> {
        let mut response = Response::new(Self::of(Content::Message(message)));
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        response
    }

    /// Wraps a service's body so that it ends at `deadline`.
    pub fn forwarded(body: B, deadline: Option<Instant>, permit: Option<UnauthenticatedCallPermit>) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Self { content: Content::Forwarded(body), deadline, _permit: permit }
    }
}

impl<B> Default for GateBody<B> {
    fn default() -> Self {
        Self::of(Content::Ended)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for GateBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Polled before the service's body: a body that is always ready would never reach its deadline otherwise.
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            // Drops the service's body and everything that it holds.
            self.content = Content::Ended;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&Refusal::deadline_exceeded().into())))));
        }
        match &mut self.content {
            Content::Forwarded(body) => Pin::new(body).poll_frame(context),
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
            Content::Forwarded(body) => body.is_end_stream(),
            Content::Ended => true,
            Content::Message(_) | Content::Status => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Forwarded(body) => body.size_hint(),
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

// === impl ErrorResponse ===

impl ErrorResponse {
    /// Answers with an HTTP status other than 200: for requests that are not gRPC and may come from clients of another
    /// protocol. gRPC clients read the gRPC status beside it.
    pub fn as_http(http: StatusCode, refusal: Refusal) -> Self {
        Self { http, ..refusal.into() }
    }

    /// Adds the header `grpc-accept-encoding`.
    pub fn of_encoding(refusal: Refusal) -> Self {
        Self { encoding: true, ..refusal.into() }
    }

    /// Builds the HTTP response.
    pub fn into_response<B>(self) -> Response<GateBody<B>> {
        let Self { http, status, encoding } = self;
        let mut response: Response<GateBody<B>> = status.into_http();
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

impl From<Status> for ErrorResponse {
    fn from(status: Status) -> Self {
        Self { http: StatusCode::OK, status, encoding: false }
    }
}

impl From<Refusal> for ErrorResponse {
    fn from(refusal: Refusal) -> Self {
        Status::from(refusal).into()
    }
}

impl From<crate::app::AppError> for ErrorResponse {
    fn from(error: crate::app::AppError) -> Self {
        Status::from(error).into()
    }
}

// === impl SingleFrame ===

impl SingleFrame {
    /// Creates a body of one frame.
    pub fn new(frame: Bytes) -> Self {
        Self(Some(frame))
    }
}

impl Body for SingleFrame {
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
