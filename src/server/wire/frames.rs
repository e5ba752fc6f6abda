//! Parses the frames of a connection as they are read: a preface of 24 bytes, then frames with headers of 9 bytes.

use std::time::Instant;

use super::{
    authority,
    meter::{Flood, Frame, FrameMeter},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// The size of the priority fields in HEADERS.
const PRIORITY_BYTES: usize = 5;
/// The most bytes and frames of an incomplete header block that are held: more than the transport accepts, which is
/// left to refuse what is larger.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const BLOCK_FRAMES_MAX: usize = 64;

/// The position in the frames of a connection.
#[derive(Debug, Default)]
pub(crate) struct FrameParser {
    /// Bytes of the preface that have arrived.
    preface: usize,
    /// Whether this is not HTTP/2, so that all bytes are passed on unchanged.
    opaque: bool,
    /// Bytes of the current frame's payload that are still to come.
    payload: usize,
    /// Whether the first frame, the client's SETTINGS, has begun.
    begun: bool,
}

/// How the header block that begins here continues.
enum HeaderBlock {
    /// It is complete, with this many bytes.
    Whole(usize),
    /// Its end has not arrived.
    Partial,
    /// It is too large or malformed; its first frame has this many bytes.
    GivenUp(usize),
}

impl FrameParser {
    /// Reports whether the client has sent its preface and its SETTINGS.
    pub fn greeted(&self) -> bool {
        self.begun && self.payload == 0
    }

    /// Parses bytes from where the last call stopped, and repairs header blocks in place. Returns how many bytes may be
    /// passed on. The rest is the incomplete beginning of a frame's header or of a header block, and must be passed
    /// again with more bytes behind it.
    ///
    /// # Errors
    /// If the frames are a flood.
    pub fn walk(
        &mut self,
        bytes: &mut [u8],
        meter: &mut FrameMeter,
        now: impl Fn() -> Instant,
    ) -> Result<usize, Flood> {
        let mut at = self.walk_preface(bytes);
        if self.opaque {
            return Ok(bytes.len());
        }
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            if self.payload > 0 {
                let passed = self.payload.min(rest.len());
                self.payload -= passed;
                at += passed;
                continue;
            }
            let Some(frame) = header(rest) else { break };
            let mut length = HEADER_BYTES + frame.length;
            if frame.kind == Frame::HEADERS {
                match block(rest) {
                    HeaderBlock::Partial => break,
                    HeaderBlock::Whole(bytes) => {
                        repair(&mut rest[..bytes]);
                        length = bytes;
                    }
                    HeaderBlock::GivenUp(bytes) => length = bytes,
                }
            }
            meter.count(frame, &now)?;
            self.begun = true;
            let passed = length.min(rest.len());
            self.payload = length - passed;
            at += passed;
        }
        Ok(at)
    }

    /// Returns how many of the bytes belong to the preface.
    fn walk_preface(&mut self, bytes: &[u8]) -> usize {
        let left = &PREFACE[self.preface..];
        let come = left.len().min(bytes.len());
        self.opaque |= left[..come] != bytes[..come];
        self.preface += come;
        come
    }
}

fn header(bytes: &[u8]) -> Option<Frame> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    Some(Frame { length, kind: header[3], flags: header[4] })
}

/// Finds the end of the header block that begins with a HEADERS frame.
fn block(bytes: &[u8]) -> HeaderBlock {
    let mut at = 0;
    for count in 0..BLOCK_FRAMES_MAX {
        let Some(frame) = header(&bytes[at..]) else { return HeaderBlock::Partial };
        let kind = if count == 0 { Frame::HEADERS } else { Frame::CONTINUATION };
        at += HEADER_BYTES + frame.length;
        if frame.kind != kind || at > BLOCK_BYTES_MAX {
            break;
        }
        if bytes.len() < at {
            return HeaderBlock::Partial;
        }
        if frame.has(Frame::END_HEADERS) {
            return HeaderBlock::Whole(at);
        }
    }
    HeaderBlock::GivenUp(header(bytes).map_or(bytes.len(), |frame| HEADER_BYTES + frame.length))
}

/// Repairs a complete header block, in however many frames it is.
fn repair(frames: &mut [u8]) {
    let Some(first) = header(frames) else { return };
    let payload = &frames[HEADER_BYTES..HEADER_BYTES + first.length];
    let (padding, mut start) = match first.has(Frame::PADDED) {
        true => (payload.first().map_or(0, |padding| usize::from(*padding)), HEADER_BYTES + 1),
        false => (0, HEADER_BYTES),
    };
    if first.has(Frame::PRIORITY) {
        start += PRIORITY_BYTES;
    }
    let end = (HEADER_BYTES + first.length).saturating_sub(padding);
    if start > end {
        return;
    }
    if first.has(Frame::END_HEADERS) {
        return authority::repair(&mut frames[start..end]);
    }
    // A block in several frames is joined, repaired, and each byte put back where it came from.
    let mut pieces = Vec::new();
    pieces.push(start..end);
    let mut at = HEADER_BYTES + first.length;
    while let Some(frame) = header(&frames[at..]) {
        pieces.push(at + HEADER_BYTES..at + HEADER_BYTES + frame.length);
        at += HEADER_BYTES + frame.length;
    }
    let mut whole: Vec<u8> = pieces.iter().flat_map(|piece| &frames[piece.clone()]).copied().collect();
    authority::repair(&mut whole);
    let mut rest = &whole[..];
    for piece in pieces {
        let (now, later) = rest.split_at(piece.len());
        frames[piece].copy_from_slice(now);
        rest = later;
    }
}
