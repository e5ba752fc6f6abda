use std::collections::BTreeSet;

use prost::Message;

use super::*;
use crate::{
    grpc::gate::methods::METHODS,
    proto::{ApiKey, BatchUpsertUsersRequest, CreateApiKeyRequest, TeamRole, TeamScope, User},
};

fn refused(message: &str, bytes: &[u8]) -> String {
    format!("{:?}", SHAPES.check(message, bytes).expect_err("refused"))
}

fn reachable(shape: usize, seen: &mut BTreeSet<usize>) {
    if seen.insert(shape) {
        for (_, field) in &SHAPES.shapes[shape].fields {
            if let Kind::Message(inner) = field.kind {
                reachable(inner, seen);
            }
        }
    }
}

#[test]
fn every_repeated_field_of_every_request_has_a_bound_and_every_bound_a_field() {
    let mut seen = BTreeSet::new();
    METHODS.all().iter().for_each(|method| reachable(SHAPES.by_name[&method.input], &mut seen));
    let mut unused: BTreeSet<_> = ENTRIES_MAX.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (name, shape) in &SHAPES.by_name {
        for (_, field) in SHAPES.shapes[*shape].fields.iter().filter(|(_, field)| field.entries_max.is_some()) {
            let full = format!("{name}.{}", field.name);
            assert!(!seen.contains(shape) || unused.contains(&full), "{full} needs a line in ENTRIES_MAX");
        }
    }
    for shape in seen {
        let name = SHAPES.by_name.iter().find(|(_, number)| **number == shape).expect("it has a name").0;
        SHAPES.shapes[shape].fields.iter().for_each(|(_, field)| _ = unused.remove(&format!("{name}.{}", field.name)));
    }
    assert!(unused.is_empty(), "no request has {unused:?}");
}

#[test]
fn numbers_are_counted_packed_and_unpacked_and_both_together() {
    const LIST: &str = "latchkey.v1.ListApiKeysRequest";
    // Field 7, packed: 4 MiB of ones; unpacked: a key and a value, again and again.
    let packed = |count: usize| [&[0x3a][..], &varint(count), &vec![1; count]].concat();
    let unpacked = |count: usize| [0x38, 1].repeat(count);
    for bytes in [packed(4_194_304), unpacked(4_194_304)] {
        assert!(refused(LIST, &bytes).contains("states: must have at most 8 entries (got 4194304)"));
    }
    for bytes in [packed(8), unpacked(8), [packed(4), unpacked(4)].concat()] {
        assert_eq!(SHAPES.check(LIST, &bytes), Ok(DecodeOverhead { entries: 8 }));
    }
    assert!(refused(LIST, &[packed(4), unpacked(5)].concat()).contains("(got 9)"));
    // Values of ten bytes each are as many as they are, not as their bytes are.
    let negative = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1].repeat(8);
    SHAPES.check(LIST, &[&[0x3a, 80][..], &negative].concat()).expect("eight values");
}

#[test]
fn nested_fields_are_named_by_their_paths() {
    let roles = vec![TeamRole::default(); 1_001];
    let users = vec![User::default(), User { team_roles: roles, ..User::default() }];
    let batch = BatchUpsertUsersRequest { users, ..Default::default() };
    let text = refused("latchkey.v1.BatchUpsertUsersRequest", &batch.encode_to_vec());
    assert!(text.contains("users[1].team_roles: must have at most 1000 entries (got 1001)"), "{text}");
    let users = [0x12, 0].repeat(2_000_000);
    let text = refused("latchkey.v1.BatchUpsertUsersRequest", &users);
    assert!(text.contains("users: must have at most 1000 entries (got 2000000)"), "{text}");
    let key = |team_scope| CreateApiKeyRequest {
        api_key: Some(ApiKey { team_scope, ..ApiKey::default() }),
        ..CreateApiKeyRequest::default()
    };
    let scope = TeamScope { team_ids: vec![String::new(); 1_001], permissions: vec![] };
    let text = refused("latchkey.v1.CreateApiKeyRequest", &key(Some(scope)).encode_to_vec());
    assert!(text.contains("api_key.team_scope.team_ids: must have"), "{text}");
    let metadata = (0..51).map(|i| (i.to_string(), String::new())).collect();
    let many = CreateApiKeyRequest { api_key: Some(ApiKey { metadata, ..ApiKey::default() }), ..Default::default() };
    assert!(refused("latchkey.v1.CreateApiKeyRequest", &many.encode_to_vec()).contains("api_key.metadata: must"));
}

/// Protocol buffers merge messages that stand more than once, lists and all.
#[test]
fn parts_of_one_message_are_counted_together() {
    let half = CreateApiKeyRequest {
        api_key: Some(ApiKey { account_permissions: vec!["a.b".into(); 300], ..ApiKey::default() }),
        ..CreateApiKeyRequest::default()
    };
    let bytes = half.encode_to_vec();
    SHAPES.check("latchkey.v1.CreateApiKeyRequest", &bytes).expect("300 of 512");
    let text = refused("latchkey.v1.CreateApiKeyRequest", &bytes.repeat(2));
    assert!(text.contains("api_key.account_permissions: must have at most 512 entries (got 600)"), "{text}");
    let empty = CreateApiKeyRequest { api_key: Some(ApiKey::default()), ..CreateApiKeyRequest::default() };
    let text = refused("latchkey.v1.CreateApiKeyRequest", &empty.encode_to_vec().repeat(9));
    assert!(text.contains("api_key: must be given once"), "{text}");
}

#[test]
fn malformed_messages_are_refused_and_unknown_fields_skipped() {
    const LIST: &str = "latchkey.v1.ListApiKeysRequest";
    for bytes in [&[0x0f, 0xff, 0xff][..], &[0x3a, 5, 1], &[0x3d, 1, 1, 1, 1], &[0xff; 20], &[0x3b; 4_000]] {
        assert!(refused(LIST, bytes).contains("cannot be decoded"), "{bytes:?}");
    }
    // Field 1000, of each kind; a group.
    let new = [&[0xc0, 0x3e, 5][..], &[0xc2, 0x3e, 1, 7], &[0xc3, 0x3e, 0xc4, 0x3e]].concat();
    assert_eq!(SHAPES.check(LIST, &new), Ok(DecodeOverhead::default()));
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
