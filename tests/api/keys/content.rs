//! K3: names, comments, metadata, each exactly at its bound and one past it, minted and edited.

use std::collections::HashMap;

use latchkey::proto::{ApiKey, VerificationOutcome as Outcome};
use tonic::Code;

use crate::support::{Caller, World, calls::*, world::*};

/// Tries to mint a key with these contents and to give them to one that is there; both answers agree.
async fn accepted(owner: &Caller, there: &str, content: ApiKey, path: &str) -> bool {
    let minted = create(owner, ACME, &content).await;
    let edited = update(owner, ACME, ApiKey { key_id: there.into(), ..content.clone() }, &[path]).await;
    let field = format!("api_key.{path}");
    match (minted, edited) {
        (Ok(minted), Ok(edited)) => {
            let (minted, edited) = (minted.api_key.unwrap(), edited.api_key.unwrap());
            let contents = |key: &ApiKey| (key.name.clone(), key.comment.clone(), key.metadata.clone());
            assert_eq!(contents(&minted), contents(&content), "stored as sent");
            if path == "name" {
                assert_eq!(edited.name, content.name);
            }
            true
        }
        (minted, edited) => {
            assert_refused(minted, Code::InvalidArgument, "INVALID_FIELD", &field);
            assert_refused(edited, Code::InvalidArgument, "INVALID_FIELD", &field);
            false
        }
    }
}

async fn a_key(owner: &Caller) -> String {
    create(owner, ACME, &key("there", &[])).await.unwrap().api_key.unwrap().key_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_a_name_is_1_to_200_characters_not_all_white_space_without_control_characters() {
    let world = World::start().await;
    let owner = world.user("owner");
    let there = a_key(&owner).await;
    let (at, past) = (|c: &str| c.repeat(200), |c: &str| c.repeat(201));
    for name in ["x", " x ", "Ä ö", "👩‍👩‍👧", &at("a"), &at("é"), &at("𝄞"), &format!("{}x", " ".repeat(199))]
    {
        assert!(accepted(&owner, &there, key(name, &[]), "name").await, "{name:?}");
    }
    let controls = ["a\nb", "a\tb", "a\0", "\u{1b}[31m", "a\u{7f}", "a\u{85}b", "\u{9f}"];
    let blank = ["", " ", "\u{3000}\u{2003}", &" ".repeat(200)];
    for name in controls.iter().chain(&blank).copied().chain([&*past("a"), &past("é"), &past("𝄞")]) {
        assert!(!accepted(&owner, &there, key(name, &[]), "name").await, "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_names_are_not_unique() {
    let world = World::start().await;
    let ids = [a_key(&world.user("owner")).await, a_key(&world.user("owner")).await];
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_a_comment_is_at_most_5000_characters_with_newlines_and_without_nul() {
    let world = World::start().await;
    let owner = world.user("owner");
    let there = a_key(&owner).await;
    let comment = |comment: String| ApiKey { comment, ..key("k", &[]) };
    for good in ["", "one\ntwo\r\n\tthree", "é", &"é".repeat(5_000), &"𝄞".repeat(5_000), &"\n".repeat(5_000)] {
        assert!(accepted(&owner, &there, comment(good.to_owned()), "comment").await, "{}", good.len());
    }
    for bad in ["\0", "a\0b", &"a".repeat(5_001), &"é".repeat(5_001)] {
        assert!(!accepted(&owner, &there, comment(bad.to_owned()), "comment").await, "{}", bad.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_metadata_is_at_most_50_pairs_and_16_kib_of_utf_8() {
    let world = World::start().await;
    let owner = world.user("owner");
    let there = a_key(&owner).await;
    let metadata = |pairs: HashMap<String, String>| ApiKey { metadata: pairs, ..key("k", &[]) };
    let pairs = |n: usize| (0..n).map(|i| (format!("name{i}"), "value".to_owned())).collect();
    // Two bytes a character, and one for the name: 16,384 bytes in all, then one more.
    let sized = |extra: &str| HashMap::from([("k".to_owned(), format!("{}x{extra}", "é".repeat(8_191)))]);
    let one = |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
    for good in
        [HashMap::new(), pairs(50), sized(""), one("n", ""), one("é\n", "\t\u{1b}"), one(&"n".repeat(16_384), "")]
    {
        assert!(accepted(&owner, &there, metadata(good.clone()), "metadata").await, "{} pairs", good.len());
    }
    for bad in [pairs(51), sized("y"), one(&"n".repeat(16_384), "v"), one("", "v"), one("n\0", ""), one("n", "\0")] {
        assert!(!accepted(&owner, &there, metadata(bad.clone()), "metadata").await, "{} pairs", bad.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_an_edit_replaces_metadata_as_a_whole() {
    let world = World::start().await;
    let owner = world.user("owner");
    let there = a_key(&owner).await;
    let edit = async |pairs: &[(&str, &str)]| {
        let metadata = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = ApiKey { key_id: there.clone(), metadata, ..Default::default() };
        update(&owner, ACME, key, &["metadata"]).await.unwrap().api_key.unwrap().metadata
    };
    assert_eq!(edit(&[("a", "1"), ("b", "2")]).await.len(), 2);
    assert_eq!(edit(&[("b", "3")]).await, HashMap::from([("b".to_owned(), "3".to_owned())]));
    assert_eq!(edit(&[]).await, HashMap::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_metadata_is_never_an_input_to_authority() {
    let world = World::start().await;
    let claims = ["account_permissions", "permissions", "team_ids", "account_id", "admin", "system.operate"];
    let metadata = claims.iter().map(|claim| ((*claim).to_owned(), "billing.manage".to_owned())).collect();
    let boasting = ApiKey { metadata, ..key("k", &[]) };
    let minted = create(&world.user("owner"), ACME, &boasting).await.unwrap();
    assert_eq!(world.outcome(&minted.token, "billing.manage", &["red"]).await, Outcome::PermissionDenied);
    let refused = create(&world.server.caller(&minted.token), ACME, &key("k", &[])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
}
