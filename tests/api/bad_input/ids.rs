//! Ids, page sizes and page tokens, in every request that has them: found in the descriptors.

use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, field_descriptor_proto::Type};
use tonic::Status;

use super::*;
use crate::{
    coverage::{Rpc, rpcs},
    support::world::ACME,
};

const A_KEY: &str = "key_01h2xcejqtf2nbrexx3vqjhp41";

/// What a text of a request is when it is good; `None` for texts that are not ids.
fn good(field: &FieldDescriptorProto) -> Option<&'static str> {
    match field.name() {
        "account_id" => Some(ACME),
        "key_id" => Some(A_KEY),
        "team_id" => Some("red"),
        "role_id" | "user_id" => Some("owner"),
        _ => None,
    }
}

/// Such requests narrow a list by an id, or leave it out.
fn optional(rpc: &Rpc, field: &FieldDescriptorProto) -> bool {
    let filters = ["ApiKeyService.ListApiKeys", "EventService.ListEvents"];
    rpc.name == "EventService.VerifyEventChain"
        || rpc.name == filters[0] && field.name() == "team_id"
        || rpc.name == filters[1]
}

fn offered() -> impl Iterator<Item = Rpc> {
    let later = ["EventService.WatchEvents", "EventService.AwaitPropagation", "TokenService.ReportLeakedToken"];
    rpcs().into_iter().filter(move |rpc| !later.contains(&rpc.name.as_str()))
}

fn put_text(number: i32, text: &str, bytes: &mut Vec<u8>) {
    prost::encoding::string::encode(u32::try_from(number).expect("a number"), &text.to_owned(), bytes);
}

/// A request whose ids are good, with one field more.
fn request(input: &DescriptorProto, but: &FieldDescriptorProto, one: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in input.field.iter().filter(|field| field.number() != but.number()) {
        if let (Type::String, Some(text)) = (field.r#type(), good(field)) {
            put_text(field.number(), text, &mut bytes);
        }
    }
    one(&mut bytes);
    bytes
}

async fn send(world: &World, rpc: &Rpc, bytes: Vec<u8>) -> Result<(), Status> {
    rpc.send_as(&world.server.channel, &world.server.operator.token, bytes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_id_is_refused_by_name_in_every_request() {
    let world = World::start().await;
    let unchanged = Unchanged::since_now(&world).await;
    let long = "a".repeat(65);
    let mut tried = 0;
    for rpc in offered() {
        for field in rpc.input.field.iter().filter(|field| good(field).is_some()) {
            let mut bad = vec!["a b", "a/b", "é", "a\0", &long, "key_", "évt", "acme\n", "'; --"];
            if field.name() == "key_id" {
                bad.extend(["k", "evt_01h2xcejqtf2nbrexx3vqjhp41", "key_01H2XCEJQTF2NBREXX3VQJHP41"]);
            } else {
                // A well-formed external id.
                bad.retain(|id| *id != "key_");
            }
            if !optional(&rpc, field) {
                bad.push("");
            }
            for id in bad {
                let bytes = request(&rpc.input, field, |bytes| put_text(field.number(), id, bytes));
                let result = send(&world, &rpc, bytes).await;
                assert!(result.is_err(), "{} took `{id}` as {}", rpc.name, field.name());
                bad_field(result, field.name());
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "only {tried}");
    unchanged.still(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_negative_page_size_and_a_foreign_page_token_are_refused_in_every_list() {
    let world = World::start().await;
    let mut lists = 0;
    for rpc in offered() {
        let field = |name: &str| rpc.input.field.iter().find(|field| field.name() == name);
        let (Some(size), Some(token)) = (field("page_size"), field("page_token")) else { continue };
        lists += 1;
        let with_size = |size_value: i32| {
            request(&rpc.input, size, |bytes| {
                prost::encoding::int32::encode(u32::try_from(size.number()).expect("a number"), &size_value, bytes);
            })
        };
        send(&world, &rpc, with_size(i32::MAX)).await.unwrap_or_else(|status| panic!("{}: {status:?}", rpc.name));
        for negative in [-1, i32::MIN] {
            bad_field(send(&world, &rpc, with_size(negative)).await, "page_size");
        }
        let long = "A".repeat(10_000);
        for junk in ["x", "!!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA", &long, "é"] {
            let bytes = request(&rpc.input, token, |bytes| put_text(token.number(), junk, bytes));
            bad_field(send(&world, &rpc, bytes).await, "page_token");
        }
    }
    assert_eq!(lists, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_left_out_is_asked_for() {
    use latchkey::proto::*;
    let world = World::start().await;
    let unchanged = Unchanged::since_now(&world).await;
    let empty = |account_id: &str| CreateApiKeyRequest { account_id: account_id.into(), ..Default::default() };
    for (name, field) in [
        ("ApiKeyService.CreateApiKey", "api_key"),
        ("ApiKeyService.UpdateApiKey", "api_key"),
        ("DirectoryService.UpsertTeam", "team"),
        ("DirectoryService.UpsertRole", "role"),
        ("DirectoryService.UpsertUser", "user"),
    ] {
        let rpc = offered().find(|rpc| rpc.name == name).expect(name);
        // All of them have their account id in field 1, as CreateApiKey does.
        bad_field(send(&world, &rpc, empty(ACME).encode_to_vec()).await, field);
    }
    for (name, field) in
        [("DirectoryService.UpsertAccount", "account"), ("DirectoryService.ApplyCatalogue", "catalogue")]
    {
        let rpc = offered().find(|rpc| rpc.name == name).expect(name);
        bad_field(send(&world, &rpc, vec![]).await, field);
    }
    unchanged.still(&world).await;
}
