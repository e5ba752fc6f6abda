//! What the transport refuses before a handler sees it, with a reason like every other error.

use latchkey::proto::{ApiKey, GetIdentityRequest, VerifyTokenRequest};
use prost_types::DescriptorProto;
use tonic::{Code, Request};

use super::*;
use crate::{
    coverage::{Rpc, rpcs},
    support::world::*,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_ten_megabytes_is_refused_and_the_server_goes_on() {
    let world = World::start().await;
    let unchanged = Unchanged::since_now(&world).await;
    let huge = "x".repeat(10 << 20);
    let key = ApiKey { comment: huge.clone(), ..key("k", &[]) };
    let sent = mint(&world.user("owner"), &key).await;
    refused(sent, Code::ResourceExhausted, "QUOTA_EXCEEDED", "message_bytes");
    let request = VerifyTokenRequest { token: huge, ..Default::default() };
    let sent = world.verifier.tokens().verify_token(request).await;
    refused(sent, Code::ResourceExhausted, "QUOTA_EXCEEDED", "message_bytes");
    unchanged.still(&world).await;
    list(&world.user("owner")).await.expect("the same connection serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_decode_is_the_callers_fault() {
    let world = World::start().await;
    let channel = &world.server.channel;
    for rpc in rpcs().iter().filter(|rpc| rpc.name != "TokenService.StreamVerifyTokens") {
        // A tag of wire type 7, which there is not.
        let sent = rpc.send_as(channel, &world.server.operator.token, vec![0x0f, 0xff, 0xff]).await;
        refused(sent, Code::InvalidArgument, "INVALID_FIELD", "cannot be decoded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_or_service_that_is_not_there_is_unimplemented() {
    let world = World::start().await;
    for name in ["ApiKeyService.NoSuchMethod", "NoSuchService.GetApiKey"] {
        let rpc = Rpc { name: name.into(), input: DescriptorProto::default() };
        let sent = rpc.send_as(&world.server.channel, &world.server.operator.token, vec![]).await;
        refused(sent, Code::Unimplemented, "NOT_IMPLEMENTED", "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a6_repeated_headers_are_refused_by_every_rpc() {
    let world = World::start().await;
    let unchanged = Unchanged::since_now(&world).await;
    let bearer = || ("authorization", crate::support::bearer(&world.product.token));
    let user = || ("latchkey-on-behalf-of", "acme/users/owner".to_owned());
    for rpc in rpcs() {
        let twice = rpc.send(&world.server.channel, vec![], &[bearer(), bearer()]).await;
        bad_metadata(twice, "authorization");
        let twice = rpc.send(&world.server.channel, vec![], &[bearer(), user(), user()]).await;
        bad_metadata(twice, "latchkey-on-behalf-of");
    }
    unchanged.still(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_not_ascii_or_very_long_are_no_credentials() {
    let world = World::start().await;
    let client = || latchkey::proto::token_service_client::TokenServiceClient::new(world.server.channel.clone());
    for value in [&b"Bearer \xff\xfe\xfd"[..], b"Bearer \xc3\xa9", &[b"Bearer ".as_slice(), &[b'x'; 4_000]].concat()] {
        let mut request = Request::new(GetIdentityRequest {});
        let value = tonic::codegen::http::HeaderValue::from_bytes(value).expect("a header value");
        let value = tonic::metadata::MetadataMap::from_headers(
            [(tonic::codegen::http::header::AUTHORIZATION, value)].into_iter().collect(),
        );
        *request.metadata_mut() = value;
        unauthenticated(client().get_identity(request).await, "BAD_CREDENTIALS");
    }
}
