//! Reads and writes gRPC's framing of messages: a prefix of five bytes that says whether the message is compressed and
//! how long it is.

use prost::bytes::{Bytes, BytesMut};

use crate::grpc::status::Refusal;

/// The length of gRPC's message prefix: a compression flag and a four-byte length.
pub const PREFIX_BYTES: usize = 5;
/// The most memory allocated for a message before its bytes have arrived: an announced length is not trusted.
const PREALLOCATED_BYTES_MAX: usize = 64 * 1024;

/// Encodes a message with its prefix.
pub fn framed(message: &impl prost::Message) -> Bytes {
    let len = message.encoded_len();
    let mut frame = Vec::with_capacity(PREFIX_BYTES + len);
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(len).expect("no answer has 4 GiB").to_be_bytes());
    message.encode(&mut frame).expect("a vector grows");
    frame.into()
}

/// Reassembles messages from the pieces of a body, copying only messages that arrive in several pieces.
pub struct Deframer {
    message_bytes_max: usize,
    first: Bytes,
    joined: BytesMut,
}

impl Deframer {
    /// Creates a deframer that refuses messages longer than `message_bytes_max`.
    pub fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, first: Bytes::new(), joined: BytesMut::new() }
    }

    /// Adds a piece of the body.
    pub fn add(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = piece;
            return;
        }
        if !self.first.is_empty() {
            let announced = self.whole_len().ok().flatten().unwrap_or(0).min(PREALLOCATED_BYTES_MAX);
            self.joined.reserve(announced.max(self.first.len() + piece.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&piece);
    }

    /// Returns the number of bytes that are held.
    pub fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// Takes the next complete message, with its prefix.
    ///
    /// # Errors
    /// As soon as the prefix announces a message that is too large or compressed.
    pub fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some(len) = self.whole_len()? else { return Ok(None) };
        if self.len() < len {
            return Ok(None);
        }
        Ok(Some(if self.joined.is_empty() { self.first.split_to(len) } else { self.joined.split_to(len).freeze() }))
    }

    /// Returns the length of the next message with its prefix, or `None` while the prefix is incomplete.
    fn whole_len(&self) -> Result<Option<usize>, Refusal> {
        let bytes: &[u8] = if self.joined.is_empty() { &self.first } else { &self.joined };
        let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Refusal::bad_framing("the message is flagged as compressed: send it uncompressed"));
        }
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if len > self.message_bytes_max {
            return Err(Refusal::message_too_large(self.message_bytes_max));
        }
        Ok(Some(PREFIX_BYTES + len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_their_bytes_came_in() {
        let frames: Vec<Bytes> = [0_usize, 1, 300, 70_000].map(|len| framed(&vec![7_u8; len])).to_vec();
        let wire = frames.concat();
        for step in [1, 2, 5, 7, 64, 5_000, wire.len()] {
            let (mut deframer, mut found) = (Deframer::new(1 << 20), vec![]);
            for piece in wire.chunks(step) {
                deframer.add(Bytes::copy_from_slice(piece));
                while let Some(frame) = deframer.next().expect("well-formed") {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames, "{step} bytes at a time");
            assert_eq!(deframer.len(), 0);
        }
    }

    #[test]
    fn a_prefix_is_enough_to_refuse() {
        for (prefix, word) in
            [([0, 0, 0, 4, 1], "larger"), ([1, 0, 0, 0, 1], "compressed"), ([9, 0, 0, 0, 1], "compressed")]
        {
            let mut deframer = Deframer::new(1_024);
            deframer.add(Bytes::copy_from_slice(&prefix));
            let refusal = deframer.next().expect_err("refused");
            assert!(format!("{refusal:?}").contains(word), "{refusal:?}");
        }
    }
}
