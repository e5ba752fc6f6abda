//! Inspects a socket's HTTP/2 frames as they are read, and passes most bytes on unchanged.
//!
//! The beginning of a frame's header or of a header block is held back until the rest has arrived; the transport could
//! not use it earlier either.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{frames::FrameParser, meter::FrameMeter};

/// Bytes read at once while a header block is incomplete.
const READ_BYTES: usize = 4 * 1024;

/// Notified of what the frames of a connection say about its client's progress.
pub(crate) trait WireEvents {
    /// The client has sent its preface and its SETTINGS. Called once.
    fn greeted(&self);
    /// Whether a frame's header or a header block has begun and is incomplete. Called when that may have changed.
    fn waits_for_headers(&self, waits: bool);
}

/// A socket whose frames are inspected as they are read.
pub(crate) struct InspectedStream<IO, P> {
    io: IO,
    events: P,
    greeted: bool,
    frames: FrameParser,
    meter: FrameMeter,
    /// Bytes that the transport has not taken: the first `ready` may be passed on, those before `given` are gone.
    held: Vec<u8>,
    ready: usize,
    given: usize,
}

/// Reads the clock, for the meter of frames.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl<IO, P: WireEvents> InspectedStream<IO, P> {
    pub(crate) fn new(io: IO, events: P) -> Self {
        let meter = FrameMeter::new(now());
        Self { io, events, greeted: false, frames: FrameParser::default(), meter, held: vec![], ready: 0, given: 0 }
    }

    /// Copies held bytes that may be passed on into the transport's buffer.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let end = self.ready.min(self.given + buffer.remaining());
        buffer.put_slice(&self.held[self.given..end]);
        self.given = end;
        if self.given < self.ready {
            return;
        }
        // Frees the memory: most connections never hold anything again.
        self.held = self.held.split_off(self.ready);
        (self.ready, self.given) = (0, 0);
    }

    fn note(&mut self) {
        if !self.greeted && self.frames.greeted() {
            self.greeted = true;
            self.events.greeted();
        }
    }
}

impl<IO: AsyncRead + Unpin, P: WireEvents + Unpin> InspectedStream<IO, P> {
    /// Reads straight into the transport's buffer, while nothing is held.
    fn poll_through(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = &mut buffer.filled_mut()[before..];
        if read.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let passed = match self.frames.walk(read, &mut self.meter, now) {
            Ok(passed) => passed,
            Err(flood) => {
                // A read that fails must return no bytes.
                buffer.set_filled(before);
                return Poll::Ready(Err(io::Error::other(flood)));
            }
        };
        if passed < read.len() {
            self.held.extend_from_slice(&read[passed..]);
            self.events.waits_for_headers(true);
            buffer.set_filled(before + passed);
        }
        self.note();
        Poll::Ready(Ok(passed))
    }

    /// Reads until some of the held bytes may be passed on.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ready == 0 {
            let mut room = [0; READ_BYTES];
            let mut room = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut room))?;
            if room.filled().is_empty() {
                // The client has closed: the transport is to see the incomplete bytes, and then the end.
                self.ready = self.held.len();
                break;
            }
            self.held.extend_from_slice(room.filled());
            self.ready = self.frames.walk(&mut self.held, &mut self.meter, now).map_err(io::Error::other)?;
        }
        self.events.waits_for_headers(self.ready < self.held.len());
        self.note();
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin, P: WireEvents + Unpin> AsyncRead for InspectedStream<IO, P> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            let before = buffer.filled().len();
            let passed = ready!(this.poll_through(context, buffer))?;
            // Zero bytes mean the end of the stream; if all bytes of this read are held, the transport must not see
            // that.
            if passed > 0 || this.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
            debug_assert_eq!(buffer.filled().len(), before);
        }
        if this.ready == 0 {
            ready!(this.poll_held(context))?;
        }
        this.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin, P: WireEvents + Unpin> AsyncWrite for InspectedStream<IO, P> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(context, bytes))?;
        this.meter.written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(context, slices))?;
        this.meter.written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "inspected_stream_tests.rs"]
mod tests;
