//! A message that is left as the bytes that it is.

use std::fmt;

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType},
};

/// A message's bytes, for a codec to take and give as they are.
#[derive(Clone, Default, PartialEq)]
pub struct Raw(pub Bytes);

/// Without its content: tokens are in it (K4).
impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.0.len())
    }
}

impl Raw {
    /// A message that was taken apart, or is put together.
    pub fn of(message: &impl Message) -> Self {
        Self(message.encode_to_vec().into())
    }
}

impl Message for Raw {
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
        // Nobody merges one; whoever does loses the field, and no more.
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
        let raw = Raw::decode(bytes.clone()).expect("anything is");
        assert_eq!((raw.encoded_len(), raw.encode_to_vec()), (bytes.len(), bytes.to_vec()));
        assert!(!format!("{raw:?}").contains("whatever"));
    }
}
