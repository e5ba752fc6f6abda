//! The one message of a unary call, gathered whole before anything looks at it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use http_body::Body;
use prost::bytes::Bytes;
use tonic::{Status, codegen::StdError};

use super::frame::{Framer, PREFIX_BYTES};
use crate::grpc::{
    door::memory::{CALL_BYTES, Reservation, UNCOUNTED_BYTES_MAX},
    status::{Refusal, client_left},
};

/// A message that was gathered.
pub struct Gathered {
    /// With its prefix.
    pub frame: Bytes,
    /// Whether some of it came after its call was first looked at.
    pub waited: bool,
}

impl Gathered {
    /// Without its prefix.
    pub fn message(&self) -> Bytes {
        self.frame.slice(PREFIX_BYTES..)
    }
}

/// Reads a body to its end: it must hold one message and no more. Trailers are dropped: what a caller says of itself
/// stands in its headers, where a proxy can see it.
///
/// # Errors
/// INVALID_ARGUMENT for anything but one message; RESOURCE_EXHAUSTED for one that is too large, or finds no room;
/// DEADLINE_EXCEEDED if its end does not come within `patience`.
pub async fn gather<B>(
    mut body: B,
    message_bytes_max: usize,
    patience: Duration,
    room: &mut Reservation,
) -> Result<Gathered, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    let mut framer = Framer::new(message_bytes_max);
    let mut whole = None;
    let mut timer = None;
    poll_fn(|context| {
        loop {
            let Poll::Ready(next) = Pin::new(&mut body).poll_frame(context) else {
                // Only now: most messages are there.
                room.set(CALL_BYTES + framer.len() + whole.as_ref().map_or(0, Bytes::len))?;
                let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(timer.as_mut().poll(context));
                return Poll::Ready(Err(Refusal::message_unfinished(patience).into()));
            };
            match next {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(client_left(error.into()))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        add(&mut framer, &mut whole, data, room)?;
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
        Some(frame) => Ok(Gathered { frame, waited }),
        None if framer.len() == 0 => Err(Refusal::bad_framing("there is no message: this method takes one").into()),
        None => Err(Refusal::bad_framing("the message ends before its announced length").into()),
    }
}

fn add(framer: &mut Framer, whole: &mut Option<Bytes>, data: Bytes, room: &mut Reservation) -> Result<(), Refusal> {
    framer.add(data);
    if whole.is_none() {
        *whole = framer.next()?;
    }
    if whole.is_some() && framer.len() > 0 {
        return Err(Refusal::bad_framing(
            "there is more than one message: this method takes one, and nothing after it",
        ));
    }
    let bytes = framer.len() + whole.as_ref().map_or(0, Bytes::len);
    if bytes > UNCOUNTED_BYTES_MAX { room.set(CALL_BYTES + bytes) } else { Ok(()) }
}
