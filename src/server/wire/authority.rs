//! Replaces an `:authority` that h2 would reject.
//!
//! gRPC clients send as `:authority` what their target says: a list of addresses (`127.0.0.1:1,127.0.0.1:2`), the path
//! of a socket, text with `%2C`. h2 resets a call whose `:authority` is not the authority of a URI, although no part of
//! this server reads it. HPACK is stateful, but its representations can be parsed without the state; so a literal value
//! that would be rejected is overwritten in place by one of the same encoded and decoded length, before h2 decodes it.
//! h2's dynamic table then holds the replacement, with the size that the client's own entry has, and later references
//! just work.

use http::uri::Authority;

use super::huffman;

/// `:authority` as a literal name, plain and Huffman-encoded.
const NAME: &[u8] = b":authority";
const NAME_ENCODED: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// The index of `:authority` in the static table.
const INDEX: usize = 1;
/// The indexes in the static table of regular fields: no request has one before its `:authority`.
const REGULAR: std::ops::RangeInclusive<usize> = 15..=61;
/// The longest value that is decoded: more than a header block may hold.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// The byte that replaces each byte of a plain value.
const FILLER: u8 = b'x';

/// Overwrites the value of a literal `:authority` in a header block if h2 would reject it. Everything else in the
/// block, however malformed, is left to the transport.
pub(super) fn repair(block: &mut [u8]) {
    if let Some(value) = find(block)
        && !is_fine(&block[value.start..value.end], value.encoded)
    {
        overwrite(&mut block[value.start..value.end], value.encoded);
    }
}

/// The position of a string in the block, and whether it is Huffman-encoded.
struct StringSpan {
    start: usize,
    end: usize,
    encoded: bool,
}

/// Finds the value of a literal `:authority`; `None` if there is none before the first regular field.
fn find(block: &[u8]) -> Option<StringSpan> {
    let mut reader = HpackReader { block, at: 0 };
    loop {
        let first = *block.get(reader.at)?;
        let name = match first {
            0x80.. => {
                if REGULAR.contains(&reader.integer(7)?) {
                    return None;
                }
                continue;
            }
            0x40..0x80 => reader.integer(6)?,
            0x20..0x40 => {
                reader.integer(5)?;
                continue;
            }
            ..0x20 => reader.integer(4)?,
        };
        let found = match name {
            0 => {
                let name = reader.text()?;
                let bytes = &block[name.start..name.end];
                // A field whose name does not begin with a colon ends the pseudo-header fields.
                let pseudo =
                    bytes.first().is_some_and(|byte| if name.encoded { byte >> 1 == 0x5c } else { *byte == b':' });
                if !pseudo {
                    return None;
                }
                bytes == if name.encoded { NAME_ENCODED } else { NAME }
            }
            INDEX => true,
            name if REGULAR.contains(&name) => return None,
            _ => false,
        };
        let value = reader.text()?;
        if found {
            return Some(value);
        }
    }
}

struct HpackReader<'a> {
    block: &'a [u8],
    at: usize,
}

impl HpackReader<'_> {
    /// Reads an integer with a prefix of this many bits (RFC 7541, 5.1).
    fn integer(&mut self, prefix_bits: u32) -> Option<usize> {
        let mask = (1usize << prefix_bits) - 1;
        let mut value = usize::from(self.next()?) & mask;
        if value < mask {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(self.next()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a string's position.
    fn text(&mut self) -> Option<StringSpan> {
        let encoded = self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let start = self.at;
        let end = start.checked_add(length).filter(|end| *end <= self.block.len())?;
        self.at = end;
        Some(StringSpan { start, end, encoded })
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.block.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

fn is_fine(value: &[u8], encoded: bool) -> bool {
    if !encoded {
        return is_authority(value);
    }
    // A value that cannot be decoded is left to the transport.
    huffman::decode(value, VALUE_BYTES_MAX).is_none_or(|value| is_authority(&value))
}

/// Reports whether h2 accepts a value; most are recognised without a full parse.
fn is_authority(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let host = value.iter().position(|byte| !plain(byte)).unwrap_or(value.len());
    let port = &value[host..];
    let is_plain = host > 0 && (port.is_empty() || port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit));
    is_plain || Authority::try_from(value).is_ok()
}

fn overwrite(value: &mut [u8], encoded: bool) {
    if !encoded {
        return value.fill(FILLER);
    }
    if let Some(decoded) = huffman::decode(value, VALUE_BYTES_MAX) {
        huffman::overwrite(value, decoded.len());
    }
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
