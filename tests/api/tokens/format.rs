//! T1: the shape of a token.

use latchkey::proto::VerificationOutcome as Outcome;
use tonic::Code;

use crate::support::{Server, World, calls::*, world::*};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed token that no server minted: the format written down a second time, bit by bit.
fn forged(prefix: &str, secret: char) -> String {
    let body = format!("{prefix}_{}", secret.to_string().repeat(43));
    let mut crc = !0u32;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut checksum = [b'0'; 6];
    for digit in checksum.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    body + std::str::from_utf8(&checksum).unwrap()
}

async fn outcome(world: &World, token: &str) -> Outcome {
    let answer = world.verify(token, None).await;
    assert_eq!((answer.key_id.as_str(), answer.account_id.as_str()), ("", ""));
    assert!(answer.revision.is_some());
    answer.outcome()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_a_minted_token_is_a_prefix_43_characters_and_a_checksum() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    let (prefix, rest) = minted.token.split_once('_').unwrap();
    assert_eq!((prefix, rest.len()), ("lk", 49));
    assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let again = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    assert_ne!(minted.token, again.token);
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_any_valid_prefix_parses() {
    let world = World::start().await;
    for prefix in ["lk", "ab", "x9", "00", "abcdefghijkl", "123456789012"] {
        for secret in ['0', 'z', 'Q'] {
            assert_eq!(outcome(&world, &forged(prefix, secret)).await, Outcome::Unknown, "{prefix}");
        }
    }
    for prefix in ["", "a", "abcdefghijklm", "Ab", "a-b", "a_b", "é"] {
        assert_eq!(outcome(&world, &forged(prefix, 'a')).await, Outcome::Malformed, "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_the_configured_prefix_governs_minting_only() {
    let mut world = World::on(Server::start_with(|flags| flags.with("token_prefix", "acme99")).await).await;
    let old = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    assert!(old.token.starts_with("acme99_"));
    assert!(old.api_key.unwrap().token_hint.starts_with("acme99_…"));
    let again = Server::start_on(world.server.database.clone(), |flags| flags.with("token_prefix", "zz")).await;
    for caller in [&mut world.verifier, &mut world.product] {
        caller.channel = again.channel.clone();
    }
    assert_eq!(world.verify(&old.token, None).await.outcome(), Outcome::Valid);
    let new = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    assert!(new.token.starts_with("zz_"));
    assert_eq!(world.verify(&new.token, None).await.outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_whatever_is_not_of_the_format_is_malformed() {
    let world = World::start().await;
    let good = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap().token;
    let cut = &good[..good.len() - 1];
    let swapped = {
        let mut bytes = good.clone().into_bytes();
        bytes.swap(5, 6);
        String::from_utf8(bytes).unwrap()
    };
    let mut bad = vec![
        String::new(),
        " ".into(),
        "_".into(),
        "lk_".into(),
        "nonsense".into(),
        cut.into(),
        format!("{good}0"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("Bearer {good}"),
        good.replacen('_', "-", 1),
        good.replacen('_', "", 1),
        good.replacen("lk", "LK", 1),
        good.replacen("lk", "ll", 1),
        format!("lk_{}é", &good[3..good.len() - 2]),
        format!("lk_{}", "-".repeat(49)),
        format!("lk_{}zzzzzz", "a".repeat(43)),
        "\0".repeat(52),
        good.repeat(2),
        "a".repeat(100_000),
    ];
    if swapped != good {
        bad.push(swapped);
    }
    // Every single wrong character is found by the checksum.
    for i in 3..good.len() {
        let other = if good.as_bytes()[i] == b'x' { 'y' } else { 'x' };
        bad.push(format!("{}{other}{}", &good[..i], &good[i + 1..]));
    }
    for token in &bad {
        assert_eq!(outcome(&world, token).await, Outcome::Malformed, "{} bytes", token.len());
    }
    assert_eq!(world.verify(&good, None).await.outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_a_caller_with_a_malformed_or_unknown_token_is_unauthenticated() {
    let world = World::start().await;
    for (token, why) in [("nonsense", "MALFORMED"), (&forged("lk", 'a'), "UNKNOWN")] {
        let refused = get(&world.server.caller(token), ACME, "key_00000000000000000000000000").await;
        assert_refused(refused, Code::Unauthenticated, "BAD_CREDENTIALS", why);
    }
}
