//! Lists are counted before anything is done with them.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::raw::*;
use crate::support::{Server, World};

/// A field of so many entries, packed and not.
fn numbers(field: u8, count: usize) -> [Vec<u8>; 2] {
    let mut packed = vec![field << 3 | 2];
    prost::encoding::encode_varint(count as u64, &mut packed);
    packed.resize(packed.len() + count, 1);
    [packed, [field << 3, 1].repeat(count)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millions_of_enum_values_are_refused_by_name_and_quickly() {
    let world = World::start().await;
    let raw = Raw::connect(world.server.running.address()).await;
    let token = world.server.operator.token.as_str();
    for (path, field, name) in
        [("/latchkey.v1.ApiKeyService/ListApiKeys", 7, "states"), ("/latchkey.v1.EventService/ListEvents", 5, "kinds")]
    {
        for message in numbers(field, 4_190_000) {
            // More than its method takes: what the prefix says is enough.
            let begun = Instant::now();
            let answer = raw.send(request(path, token, vec![Step::Data(frame(&message))])).await;
            answer.refused(Code::ResourceExhausted, "QUOTA_EXCEEDED", "message_bytes");
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
        for message in numbers(field, 10_000) {
            let answer = raw.send(request(path, token, vec![Step::Data(frame(&message))])).await;
            answer.refused(Code::InvalidArgument, "INVALID_FIELD", &format!("{name}: must have at most"));
            assert!(answer.status.message().contains("(got 10000)"), "{:?}", answer.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millions_of_empty_messages_are_refused_by_name_and_quickly() {
    let server = Server::start().await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    for (path, field, name) in [
        ("/latchkey.v1.DirectoryService/BatchUpsertUsers", 2, "users"),
        ("/latchkey.v1.DirectoryService/BatchUpsertTeams", 2, "teams"),
        ("/latchkey.v1.TokenService/VerifyTokens", 1, "checks"),
    ] {
        let message = [field << 3 | 2, 0].repeat(2_000_000);
        let answer = raw.send(request(path, token, vec![Step::Data(frame(&message))])).await;
        answer.refused(
            Code::InvalidArgument,
            "INVALID_FIELD",
            &format!("{name}: must have at most 1000 entries (got 2000000)"),
        );
    }
    // Of a stream, only that message is refused.
    let message = [&[0x08, 5][..], &[0x12, 0].repeat(2_000)].concat();
    let path = "/latchkey.v1.TokenService/StreamVerifyTokens";
    let answer: latchkey::proto::StreamVerifyTokensResponse =
        raw.send(request(path, token, vec![Step::Data(frame(&message))])).await.message();
    let error = answer.error.expect("an error");
    assert_eq!((answer.correlation_id, error.field.as_str()), (5, "checks"));
}
