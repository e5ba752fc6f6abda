use super::*;

fn minted(byte: u8) -> PlainToken {
    PlainToken::mint(&Prefix::parse("token_prefix", "lk").expect("good"), &Zeroizing::new([byte; 32]))
}

fn pepper(byte: u8) -> Pepper {
    Pepper::new("p1".into(), &Zeroizing::new([byte; 32]))
}

#[test]
fn t1_a_minted_token_parses() {
    for byte in [0, 1, 127, 255] {
        let token = minted(byte);
        assert_eq!(token.reveal().len(), 2 + 1 + 43 + 6);
        assert!(ParsedToken::parse(token.reveal().as_bytes()).is_some());
    }
}

#[test]
fn t1_the_vectors_hold() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/token_vectors.json")).expect("JSON");
    for vector in vectors["good"].as_array().expect("array") {
        let text = |name: &str| vector[name].as_str().expect(name);
        let secret = Zeroizing::new([vector["secret_byte"].as_u64().expect("number") as u8; 32]);
        let token = PlainToken::mint(&Prefix::parse("token_prefix", text("prefix")).expect("good"), &secret);
        assert_eq!(token.reveal(), text("token"));
        let pepper = pepper(vector["pepper_byte"].as_u64().expect("number") as u8);
        let digest: String = token.parsed().hash(&pepper).as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, text("digest"));
    }
    for bad in vectors["malformed"].as_array().expect("array") {
        assert!(ParsedToken::parse(bad.as_str().expect("string").as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn t1_every_single_character_typo_is_refused_without_a_look_up() {
    let token = minted(7);
    for i in 0..token.reveal().len() {
        for replacement in [b'0', b'z', b'_', b' ', 0, 0xff] {
            let mut bytes = token.reveal().as_bytes().to_vec();
            if bytes[i] != replacement {
                bytes[i] = replacement;
                assert!(ParsedToken::parse(&bytes).is_none(), "{i} {replacement}");
            }
        }
    }
}

#[test]
fn t1_prefixes_are_2_to_12_lower_case_letters_and_digits() {
    for good in ["lk", "a1", "abcdefghijkl"] {
        let prefix = Prefix::parse("token_prefix", good).expect("good");
        let token = PlainToken::mint(&prefix, &Zeroizing::new([9; 32]));
        assert!(ParsedToken::parse(token.reveal().as_bytes()).is_some());
        assert!(token.reveal().len() <= 64);
    }
    for bad in ["", "a", "A1", "a_b", "abcdefghijklm", "é1"] {
        assert!(Prefix::parse("token_prefix", bad).is_err(), "{bad}");
    }
}

#[test]
fn t2_the_digest_depends_on_token_and_pepper() {
    let (a, b) = (minted(1), minted(2));
    assert_eq!(a.parsed().hash(&pepper(1)), a.parsed().hash(&pepper(1)));
    assert_ne!(a.parsed().hash(&pepper(1)), a.parsed().hash(&pepper(2)));
    assert_ne!(a.parsed().hash(&pepper(1)), b.parsed().hash(&pepper(1)));
}

#[test]
fn t2_nothing_secret_is_debug_printed() {
    let token = minted(1);
    let pepper = pepper(0xab);
    let printed = format!("{token:?} {:?} {:?} {pepper:?}", token.parsed(), token.parsed().hash(&pepper));
    assert_eq!(printed, "PlainToken(redacted) ParsedToken(redacted) HashedToken(redacted) Pepper(p1, redacted)");
    assert_eq!(format!("{:?}", FormedToken::parse(token.reveal().as_bytes())), "Some(FormedToken(redacted))");
}

#[test]
fn t1_a_checksum_is_six_digits_of_at_most_32_bits() {
    assert_eq!(decode_base62_u32(b"000000"), Some(0));
    assert_eq!(decode_base62_u32(b"0000z1"), Some(61 * 62 + 1));
    // 2^32 - 1, and one more.
    assert_eq!(decode_base62_u32(b"4gfFC3"), Some(u32::MAX));
    for bad in [b"4gfFC4", b"zzzzzz", b"00000-", b"-00000", b"------", b"0000\xff0", b"000 00"] {
        assert_eq!(decode_base62_u32(bad), None, "{bad:?}");
    }
}

#[test]
fn k4_a_hint_is_the_prefix_and_the_last_four_characters() {
    let token = minted(3);
    let hint = token.hint();
    assert!(hint.starts_with("lk_…"));
    assert!(token.reveal().ends_with(hint.trim_start_matches("lk_…")));
    assert_eq!(hint.chars().count(), 8);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn t1_nothing_presented_makes_the_parser_panic(bytes in proptest::collection::vec(0u8..=255, 0..90)) {
        proptest::prop_assert!(ParsedToken::parse(&bytes).is_none(), "a guessed checksum");
    }

    #[test]
    fn t1_a_token_cut_or_extended_anywhere_is_malformed(byte: u8, cut in 0..51usize, tail in "[a-z0-9_é]{1,20}") {
        let token = minted(byte);
        let text = token.reveal();
        let longer = [format!("{text}{tail}"), format!("{tail}é{text}")];
        proptest::prop_assert!(ParsedToken::parse(&text.as_bytes()[..cut]).is_none());
        proptest::prop_assert!(longer.iter().all(|text| ParsedToken::parse(text.as_bytes()).is_none()));
    }

    #[test]
    fn an_id_of_any_text_is_refused_or_reads_back(text in "(key_)?.{0,30}") {
        if let Ok(id) = crate::domain::id::KeyId::parse("key_id", &text) {
            proptest::prop_assert_eq!(id.to_string(), text);
        }
    }
}
