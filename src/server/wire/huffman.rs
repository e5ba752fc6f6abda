//! HPACK's Huffman code (RFC 7541, appendix B): decodes a string, and overwrites one by another with the same encoded
//! and decoded lengths.

/// The code length of each byte in bits. The code is canonical: among codes of one length, the next byte has the next
/// code, and the first code of a length follows the last of the length before.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];
const LENGTH_MAX: usize = 30;
/// All bytes in the order of their codes.
const SORTED: [u8; 256] = sorted();
/// By code length: the first code, the number of codes, and the index of the first in `SORTED`.
const BY_LENGTH: [(u32, u32, usize); LENGTH_MAX + 1] = by_length();

/// One code of each length that a character of a host name has, shortest first: its length, the code, and the
/// character.
const FILLERS: [(u32, u32); 5] = [
    (5, 0b0_0000),            // 0
    (6, 0b10_0001),           // A
    (7, 0b101_1101),          // B
    (8, 0b1111_1100),         // X
    (13, 0b1_1111_1111_1001), // $
];

/// Decodes a string; `None` if it is malformed or longer than `bytes_max`.
pub(super) fn decode(encoded: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes_max.min(encoded.len() * 8 / 5));
    let (mut code, mut length) = (0u32, 0usize);
    for byte in encoded {
        for place in (0..8).rev() {
            code = code << 1 | u32::from(byte >> place & 1);
            length += 1;
            if length > LENGTH_MAX {
                return None;
            }
            let (first, count, start) = BY_LENGTH[length];
            if code.wrapping_sub(first) < count {
                if decoded.len() == bytes_max {
                    return None;
                }
                decoded.push(SORTED[start + (code - first) as usize]);
                (code, length) = (0, 0);
            }
        }
    }
    // The rest is padding: fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(decoded)
}

/// Overwrites an encoded string by one that decodes to as many bytes, all of them valid in a host name. Returns whether
/// that was possible: it is not for an average of more than thirteen bits a byte, which no text has.
pub(super) fn overwrite(encoded: &mut [u8], decoded_bytes: usize) -> bool {
    let bits = encoded.len() * 8;
    // Up to seven bits are padding: any sum from here on will do.
    let least = bits.saturating_sub(7);
    let (count, mut writer) = (decoded_bytes, BitWriter { into: encoded, place: 0 });
    if count == 0 || 5 * count > bits || 13 * count < least {
        return false;
    }
    if 8 * count >= least {
        // Two neighbouring lengths share the sum evenly.
        let sum = least.max(5 * count);
        let (each, longer) = (sum / count, sum % count);
        for index in 0..count {
            writer.push(FILLERS[each - 5 + usize::from(index < longer)]);
        }
    } else {
        let long = (least - 8 * count).div_ceil(5);
        for index in 0..count {
            writer.push(FILLERS[if index < long { 4 } else { 3 }]);
        }
    }
    writer.pad();
    true
}

/// Writes bits over existing bytes.
struct BitWriter<'a> {
    into: &'a mut [u8],
    place: usize,
}

impl BitWriter<'_> {
    fn push(&mut self, (length, code): (u32, u32)) {
        for bit in (0..length).rev() {
            let mask = 0x80 >> (self.place % 8);
            let byte = &mut self.into[self.place / 8];
            *byte = if code >> bit & 1 == 1 { *byte | mask } else { *byte & !mask };
            self.place += 1;
        }
    }

    fn pad(&mut self) {
        while self.place < self.into.len() * 8 {
            self.push((1, 1));
        }
    }
}

const fn sorted() -> [u8; 256] {
    let mut sorted = [0; 256];
    let (mut length, mut place) = (0, 0);
    while length <= LENGTH_MAX {
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                sorted[place] = byte as u8;
                place += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    sorted
}

const fn by_length() -> [(u32, u32, usize); LENGTH_MAX + 1] {
    let mut table = [(0, 0, 0); LENGTH_MAX + 1];
    let (mut code, mut place, mut length) = (0, 0, 1);
    while length <= LENGTH_MAX {
        let (mut count, mut byte) = (0, 0);
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                count += 1;
            }
            byte += 1;
        }
        code <<= 1;
        table[length] = (code, count, place);
        code += count;
        place += count as usize;
        length += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &[u8]) -> Vec<u8> {
        let code = |byte: u8| {
            let length = LENGTHS[usize::from(byte)];
            let (first, _, start) = BY_LENGTH[usize::from(length)];
            let place = SORTED.iter().position(|other| *other == byte).unwrap() - start;
            (u32::from(length), first + u32::try_from(place).unwrap())
        };
        let bits: usize = text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
        let mut encoded = vec![0; bits.div_ceil(8)];
        let mut writer = BitWriter { into: &mut encoded, place: 0 };
        text.iter().for_each(|byte| writer.push(code(*byte)));
        writer.pad();
        encoded
    }

    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        for (text, encoded) in [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
        ] {
            assert_eq!(decode(encoded, 64).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), encoded);
            assert_eq!(decode(encoded, text.len() - 1), None, "longer than allowed");
        }
        assert_eq!(decode(&[0xff, 0xff], 64), None, "padding of more than seven bits");
        assert_eq!(decode(&[0x00], 64), None, "padding of zeros");
    }

    proptest! {
        #[test]
        fn what_is_overwritten_decodes_to_as_many_bytes_of_a_host_name(text in "[ -~]{1,60}") {
            let mut encoded = encode(text.as_bytes());
            prop_assert_eq!(decode(&encoded, 64).unwrap(), text.as_bytes());
            if overwrite(&mut encoded, text.len()) {
                let now = decode(&encoded, 64).unwrap();
                prop_assert_eq!(now.len(), text.len());
                prop_assert!(http::uri::Authority::try_from(&now[..]).is_ok());
            } else {
                prop_assert!(encoded.len() * 8 > 13 * text.len(), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused_without_a_panic(encoded: Vec<u8>) {
            let mut encoded = encoded;
            if let Some(decoded) = decode(&encoded, 1_000) {
                overwrite(&mut encoded, decoded.len());
            }
        }
    }
}
