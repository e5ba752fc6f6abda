use proptest::prelude::*;

use super::*;

/// A header block: `:method POST`, `:scheme http`, the fields, `te: trailers`.
fn block(fields: &[&[u8]]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    fields.iter().for_each(|field| block.extend_from_slice(field));
    block.extend_from_slice(b"\x40\x02te\x08trailers");
    block
}

/// A literal field whose name has an index.
fn indexed(first: u8, value: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(value.len()).unwrap()], value].concat()
}

fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    repair(&mut bytes);
    bytes
}

#[test]
fn a_value_that_is_refused_is_overwritten_however_it_is_said() {
    let bad = b"127.0.0.1:1,127.0.0.1:2";
    let good = [FILLER; 23];
    // With indexing, without, never to be indexed.
    for first in [0x41, 0x01, 0x11] {
        assert_eq!(repaired(block(&[&indexed(first, bad)])), block(&[&indexed(first, &good)]));
    }
    // By a literal name; after other pseudo-header fields, literal and of the dynamic table; after a new table size.
    let path = indexed(0x44, b"/a.B/C");
    for (name, before) in [
        (&b"\x40\x0a:authority"[..], &path[..]),
        (b"\x00\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f", b"\xbe\xff\x03"),
        (b"\x41", b"\x3f\xe1\x1f"),
        (b"\x41", b"\x40\x05:path\x02/a"),
    ] {
        let with = |value: &[u8]| block(&[before, name, &[u8::try_from(value.len()).unwrap()], value]);
        assert_eq!(repaired(with(bad)), with(&good), "{name:?}");
    }
}

#[test]
fn a_value_in_huffmans_code_becomes_one_of_both_its_lengths() {
    // `127.0.0.1:1,127.0.0.1:2`: 5 bits a digit but 7 (`7`: 6), `.` 6, `:` 7, `,` 8.
    let bad = {
        let mut bits = String::new();
        for byte in b"127.0.0.1:1,127.0.0.1:2" {
            bits.push_str(match byte {
                b'0' => "00000",
                b'1' => "00001",
                b'2' => "00010",
                b'7' => "011101",
                b'.' => "010111",
                b':' => "1011100",
                _ => "11111010",
            });
        }
        bits.push_str(&"1".repeat((8 - bits.len() % 8) % 8));
        (0..bits.len() / 8).map(|byte| u8::from_str_radix(&bits[byte * 8..][..8], 2).unwrap()).collect::<Vec<u8>>()
    };
    assert_eq!(huffman::decode(&bad, 64).unwrap(), b"127.0.0.1:1,127.0.0.1:2");
    let field = |value: &[u8]| [&[0x41, 0x80 | u8::try_from(value.len()).unwrap()], value].concat();
    let mut bytes = block(&[&field(&bad)]);
    repair(&mut bytes);
    let value = &bytes[4..4 + bad.len()];
    let decoded = huffman::decode(value, 64).unwrap();
    assert_eq!(decoded.len(), 23);
    assert!(Authority::try_from(&decoded[..]).is_ok(), "{decoded:?}");
    assert_eq!(bytes, block(&[&field(value)]), "nothing else has changed");
}

#[test]
fn valid_and_malformed_values_stay_unchanged() {
    for fields in [
        &[&indexed(0x41, b"latchkey.example.com:443")[..]][..],
        &[&indexed(0x41, b"[::1]:50051")],
        &[&indexed(0x41, b"user%2C@host")],
        &[&indexed(0x41, b"")],
        // No `:authority`, or one where none may be.
        &[&indexed(0x44, b"/a:b:c")],
        &[b"\x40\x04host\x05a:b:c"],
        &[b"\x8f", &indexed(0x41, b"a:b:c")],
        // Broken off, or not to be decoded.
        &[b"\x41\x7f"],
        &[b"\x41\x7f\xff\xff\xff\xff\xff\xff\xff"],
        &[b"\x41\x82\xff\xff"],
    ] {
        assert_eq!(repaired(block(fields)), block(fields), "{fields:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_walked_without_a_panic_and_keep_their_length(bytes: Vec<u8>) {
        prop_assert_eq!(repaired(bytes.clone()).len(), bytes.len());
    }

    #[test]
    fn any_value_becomes_one_that_is_taken(value in "[ -~]{1,100}") {
        let bytes = repaired(block(&[&indexed(0x41, value.as_bytes())]));
        let now = &bytes[4..4 + value.len()];
        prop_assert!(Authority::try_from(now).is_ok());
        if Authority::try_from(value.as_bytes()).is_ok() {
            prop_assert_eq!(now, value.as_bytes());
        }
    }

    #[test]
    fn recognised_values_are_accepted_by_h2(value in "[a-zA-Z0-9.:-]{1,20}") {
        prop_assert_eq!(is_authority(value.as_bytes()), Authority::try_from(value.as_bytes()).is_ok());
    }
}
