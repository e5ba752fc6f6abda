//! Bodies: one ready message with its status, and a request's body that was looked into and is handed on whole.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use prost::bytes::{Buf, Bytes, BytesMut};

/// gRPC's own prefix of a message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A response's body: a message that is ready, or the body that a service made.
#[derive(Default)]
pub enum ReadyBody<B> {
    /// A message, then the status OK.
    Message(Bytes),
    /// The message was read; the status is left.
    Status,
    /// Read to its end.
    #[default]
    Ended,
    /// A service's.
    Passed(B),
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadyBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Passed(body) => Pin::new(body).poll_frame(context),
            Self::Ended => Poll::Ready(None),
            Self::Message(message) => {
                let message = std::mem::take(message);
                *self = Self::Status;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Self::Status => {
                *self = Self::Ended;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passed(body) => body.is_end_stream(),
            Self::Ended => true,
            Self::Message(_) | Self::Status => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passed(body) => body.size_hint(),
            Self::Message(message) => SizeHint::with_exact(message.len() as u64),
            Self::Status | Self::Ended => SizeHint::with_exact(0),
        }
    }
}

/// A request's body of which the beginning was read: it comes first again, then how reading it failed, then the rest.
pub struct Replayed<B: Body> {
    /// What was read.
    pub beginning: Option<Bytes>,
    /// How reading it failed, if it did.
    pub failed: Option<B::Error>,
    /// What was not read.
    pub rest: B,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Replayed<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(beginning) = self.beginning.take() {
            return Poll::Ready(Some(Ok(Frame::data(beginning))));
        }
        match self.failed.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.beginning.is_none() && self.failed.is_none() && self.rest.is_end_stream()
    }
}

/// A gRPC message as it comes in, joined only if it comes in pieces.
#[derive(Default)]
pub struct Gathered {
    first: Bytes,
    joined: BytesMut,
}

impl Gathered {
    /// Adds a piece.
    pub fn add(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            // Once: all of it is announced. Whoever announces too much is not believed.
            self.joined.reserve(self.announced().unwrap_or(0).min(1 << 20).max(self.first.len() + piece.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&piece);
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// All of them.
    pub fn take(&mut self) -> Bytes {
        let first = std::mem::take(&mut self.first);
        if self.joined.is_empty() { first } else { std::mem::take(&mut self.joined).freeze() }
    }

    /// How long the whole is to be, its prefix included.
    fn announced(&self) -> Option<usize> {
        let mut prefix = self.first.get(1..PREFIX_BYTES)?;
        Some(PREFIX_BYTES + prefix.get_u32() as usize)
    }
}

/// The message of a gRPC frame that is whole, alone and not compressed.
pub fn message(frame: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = frame.split_at_checked(PREFIX_BYTES)?;
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    (prefix[0] == 0 && len as usize == message.len()).then_some(message)
}
