//! Splits a stream's body into complete messages, each within its bounds, and rejects anything after the last.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame};
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tonic::{Status, codegen::StdError};

use super::frame::Deframer;
use crate::grpc::{
    gate::memory::{CALL_BYTES, MemoryReservation, UNCOUNTED_BYTES_MAX},
    status::{Refusal, client_left},
};

/// The body of a client stream. It may be idle between messages for any time, but a message that has begun must be
/// complete within `timeout`.
pub struct Messages<B> {
    body: B,
    deframer: Deframer,
    timeout: Duration,
    /// Runs while a message is incomplete.
    timer: Option<Pin<Box<Sleep>>>,
    reservation: MemoryReservation,
    ended: bool,
}

impl<B> Messages<B> {
    /// Splits `body` into messages.
    pub fn new(body: B, message_bytes_max: usize, timeout: Duration, reservation: MemoryReservation) -> Self {
        Self { body, deframer: Deframer::new(message_bytes_max), timeout, timer: None, reservation, ended: false }
    }
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(frame) = self.deframer.next()? {
                self.timer = None;
                self.count()?;
                return Poll::Ready(Some(Ok(frame)));
            }
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) else {
                if self.deframer.len() == 0 {
                    return Poll::Pending;
                }
                self.reservation.set(CALL_BYTES + self.deframer.len())?;
                let timeout = self.timeout;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(timer.as_mut().poll(context));
                return Poll::Ready(Some(Err(Refusal::message_unfinished(timeout).into())));
            };
            match next {
                Some(Err(error)) => return Poll::Ready(Some(Err(client_left(error.into())))),
                Some(Ok(frame)) => {
                    // Trailers are dropped: credentials and options stand in headers, where a proxy can see them.
                    if let Ok(data) = frame.into_data() {
                        self.deframer.add(data);
                        self.count()?;
                    }
                }
                None if self.deframer.len() == 0 => return Poll::Ready(None),
                None => {
                    let refusal = Refusal::bad_framing("the last message ends before its announced length");
                    return Poll::Ready(Some(Err(refusal.into())));
                }
            }
        }
    }

    /// Reserves memory for the bytes of an incomplete message, if they are many.
    fn count(&mut self) -> Result<(), Refusal> {
        let held = self.deframer.len();
        self.reservation.set(if held > UNCOUNTED_BYTES_MAX { CALL_BYTES + held } else { 0 })
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
