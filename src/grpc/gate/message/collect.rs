//! Collects the one message of a unary call before anything looks at it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use http_body::Body;
use prost::bytes::Bytes;
use tonic::{Status, codegen::StdError};

use super::frame::{Deframer, PREFIX_BYTES};
use crate::grpc::{
    gate::memory::{CALL_BYTES, MemoryReservation, UNCOUNTED_BYTES_MAX},
    status::{Refusal, client_left},
};

/// A complete message.
pub struct CollectedMessage {
    /// The message with its prefix.
    pub frame: Bytes,
    /// Whether part of it arrived after its call was first polled.
    pub waited: bool,
}

impl CollectedMessage {
    /// Returns the message without its prefix.
    pub fn message(&self) -> Bytes {
        self.frame.slice(PREFIX_BYTES..)
    }
}

/// Reads a body that must hold exactly one message. Trailers are dropped: credentials and options stand in headers,
/// where a proxy can see them.
///
/// # Errors
/// INVALID_ARGUMENT for anything but one message; RESOURCE_EXHAUSTED for a message that is too large or exceeds the
/// memory reservation; DEADLINE_EXCEEDED if it is not complete within `timeout`.
pub async fn collect<B>(
    mut body: B,
    message_bytes_max: usize,
    timeout: Duration,
    reservation: &mut MemoryReservation,
) -> Result<CollectedMessage, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    let mut deframer = Deframer::new(message_bytes_max);
    let mut whole = None;
    let mut timer = None;
    poll_fn(|context| {
        loop {
            let Poll::Ready(next) = Pin::new(&mut body).poll_frame(context) else {
                // Reserved only now: most messages are complete at the first poll.
                reservation.set(CALL_BYTES + deframer.len() + whole.as_ref().map_or(0, Bytes::len))?;
                let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(timer.as_mut().poll(context));
                return Poll::Ready(Err(Refusal::message_unfinished(timeout).into()));
            };
            match next {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(client_left(error.into()))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        add(&mut deframer, &mut whole, data, reservation)?;
                    }
                }
            }
            if body.is_end_stream() {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await?;
    let waited = timer.is_some();
    match whole {
        Some(frame) => Ok(CollectedMessage { frame, waited }),
        None if deframer.len() == 0 => {
            Err(Refusal::bad_framing("there is no message: this method takes exactly one").into())
        }
        None => Err(Refusal::bad_framing("the message ends before its announced length").into()),
    }
}

fn add(
    deframer: &mut Deframer,
    whole: &mut Option<Bytes>,
    data: Bytes,
    reservation: &mut MemoryReservation,
) -> Result<(), Refusal> {
    deframer.add(data);
    if whole.is_none() {
        *whole = deframer.next()?;
    }
    if whole.is_some() && deframer.len() > 0 {
        return Err(Refusal::bad_framing(
            "there is more than one message: this method takes exactly one, and nothing after it",
        ));
    }
    let bytes = deframer.len() + whole.as_ref().map_or(0, Bytes::len);
    if bytes > UNCOUNTED_BYTES_MAX { reservation.set(CALL_BYTES + bytes) } else { Ok(()) }
}
