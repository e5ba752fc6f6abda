//! The messages of a stream as a service gets them: each whole, within its bounds, and nothing after the last.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame};
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tonic::{Status, codegen::StdError};

use super::frame::Framer;
use crate::grpc::{
    door::memory::{CALL_BYTES, Reservation, UNCOUNTED_BYTES_MAX},
    status::{Refusal, client_left},
};

/// A stream's body. Between messages it may be idle for as long as its client likes; a message that has begun must end
/// in time.
pub struct Messages<B> {
    body: B,
    framer: Framer,
    patience: Duration,
    /// Runs while a message is unfinished.
    timer: Option<Pin<Box<Sleep>>>,
    room: Reservation,
    ended: bool,
}

impl<B> Messages<B> {
    /// The messages in `body`.
    pub fn new(body: B, message_bytes_max: usize, patience: Duration, room: Reservation) -> Self {
        Self { body, framer: Framer::new(message_bytes_max), patience, timer: None, room, ended: false }
    }
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(frame) = self.framer.next()? {
                self.timer = None;
                self.count()?;
                return Poll::Ready(Some(Ok(frame)));
            }
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) else {
                if self.framer.len() == 0 {
                    return Poll::Pending;
                }
                self.room.set(CALL_BYTES + self.framer.len())?;
                let patience = self.patience;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(timer.as_mut().poll(context));
                return Poll::Ready(Some(Err(Refusal::message_unfinished(patience).into())));
            };
            match next {
                Some(Err(error)) => return Poll::Ready(Some(Err(client_left(error.into())))),
                Some(Ok(frame)) => {
                    // Trailers are dropped: they are nobody's metadata.
                    if let Ok(data) = frame.into_data() {
                        self.framer.add(data);
                        self.count()?;
                    }
                }
                None if self.framer.len() == 0 => return Poll::Ready(None),
                None => {
                    let refusal = Refusal::bad_framing("the last message ends before its announced length");
                    return Poll::Ready(Some(Err(refusal.into())));
                }
            }
        }
    }

    /// Counts what is held of an unfinished message, if it is much.
    fn count(&mut self) -> Result<(), Refusal> {
        let held = self.framer.len();
        self.room.set(if held > UNCOUNTED_BYTES_MAX { CALL_BYTES + held } else { 0 })
    }
}

impl<B> Body for Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_message(context));
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next.map(|frame| frame.map(Frame::data)))
    }
}
