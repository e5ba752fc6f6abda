//! A protobuf message that is left encoded.

use std::fmt;

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType},
};

/// An encoded message that a tonic codec passes on without decoding it.
#[derive(Clone, Default, PartialEq)]
pub struct RawMessage(pub Bytes);

/// Prints the length only: the bytes contain tokens (K4).
impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawMessage({} bytes)", self.0.len())
    }
}

impl RawMessage {
    /// Encodes a message.
    pub fn of(message: &impl Message) -> Self {
        Self(message.encode_to_vec().into())
    }
}

impl Message for RawMessage {
    fn encode_raw(&self, out: &mut impl BufMut) {
        out.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Never called by the codec. A caller that merges loses the field and nothing else.
        prost::encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn decode(mut buf: impl Buf) -> Result<Self, DecodeError> {
        Ok(Self(buf.copy_to_bytes(buf.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_it_was() {
        let bytes = Bytes::from_static(b"\x08\x96\x01 whatever");
        let raw_message = RawMessage::decode(bytes.clone()).expect("anything is");
        assert_eq!((raw_message.encoded_len(), raw_message.encode_to_vec()), (bytes.len(), bytes.to_vec()));
        assert!(!format!("{raw_message:?}").contains("whatever"));
    }
}
