//! Method, content-type, sizes, paths and encodings.

use latchkey::proto::{GetIdentityRequest, GetIdentityResponse, VerifyTokenRequest, VerifyTokenResponse};
use tonic::{Code, codegen::http};

use super::raw::*;
use crate::support::{Server, World};

const IDENTITY: &str = "/latchkey.v1.TokenService/GetIdentity";
const VERIFY: &str = "/latchkey.v1.TokenService/VerifyToken";
const CREATE: &str = "/latchkey.v1.ApiKeyService/CreateApiKey";
const CHECK: &str = "/grpc.health.v1.Health/Check";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_post_of_grpc_is_refused_by_http_and_changes_nothing() {
    let server = Server::start().await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"] {
        for path in [IDENTITY, VERIFY, CREATE, CHECK, "/nothing/Here"] {
            let sent = raw
                .call(path, token, &GetIdentityRequest {}, |request| *request.method_mut() = method.parse().unwrap());
            let answer = sent.await;
            assert_eq!((answer.http, &answer.headers["allow"]), (405, &"POST".parse().unwrap()), "{method} {path}");
            assert!(answer.data.is_empty());
        }
    }
    for kind in
        ["text/plain", "application/json", "application/grpc+json", "application/grpc-web", "application/grpcx", ""]
    {
        for path in [IDENTITY, VERIFY, CREATE, CHECK] {
            let answer = raw
                .call(path, token, &GetIdentityRequest {}, |request| {
                    request.headers_mut().insert("content-type", kind.parse().unwrap());
                })
                .await;
            assert_eq!(answer.http, 415, "{kind} {path}");
            answer.refused(Code::InvalidArgument, "INVALID_METADATA", "content-type");
        }
    }
    let answer = raw
        .call(IDENTITY, token, &GetIdentityRequest {}, |request| _ = request.headers_mut().remove("content-type"))
        .await;
    assert_eq!(answer.http, 415);
    for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC", "application/grpc;charset=utf-8"] {
        let answer = raw
            .call(IDENTITY, token, &GetIdentityRequest {}, |request| {
                request.headers_mut().insert("content-type", kind.parse().unwrap());
            })
            .await;
        assert_eq!(answer.message::<GetIdentityResponse>().account_id, "system", "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_bytes_of_headers_are_resource_exhausted_for_a_real_client() {
    let world = World::start().await;
    for bytes in [17 << 10, 60 << 10, 200 << 10] {
        for parts in [1, 16] {
            let mut request = tonic::Request::new(GetIdentityRequest {});
            for part in 0..parts {
                let name = tonic::metadata::AsciiMetadataKey::from_bytes(format!("x-{part}").as_bytes()).unwrap();
                request.metadata_mut().insert(name, "x".repeat(bytes / parts).parse().unwrap());
            }
            let sent = world.verifier.tokens().get_identity(request).await;
            crate::calls::refused(sent, Code::ResourceExhausted, "QUOTA_EXCEEDED", "header_bytes");
        }
    }
    world.verifier.tokens().get_identity(GetIdentityRequest {}).await.expect("the connection serves on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoding_that_there_is_not_is_unimplemented_and_identity_is_none() {
    let server = Server::start().await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    let with = |encoding: &'static str| {
        move |request: &mut http::Request<Vec<Step>>| {
            request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        }
    };
    let question = VerifyTokenRequest { token: token.to_owned(), ..Default::default() };
    for encoding in ["gzip", "zstd", "", "identity,gzip"] {
        let answer = raw.call(VERIFY, token, &question, with(encoding)).await;
        answer.refused(Code::Unimplemented, "NOT_IMPLEMENTED", "identity");
        assert_eq!(answer.headers["grpc-accept-encoding"], "identity");
    }
    let answer = raw.call(VERIFY, token, &question, with("identity")).await;
    assert!(answer.message::<VerifyTokenResponse>().verification.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_were_joined_are_refused_by_name() {
    let world = World::start().await;
    let raw = Raw::connect(world.server.running.address()).await;
    let (a, b) = (&world.product.token, &world.verifier.token);
    for value in [format!("Bearer {a},Bearer {b}"), format!("Bearer {a}, Bearer {b}"), format!("Bearer {a},")] {
        let answer = raw
            .call(IDENTITY, "", &GetIdentityRequest {}, |request| {
                request.headers_mut().insert("authorization", value.parse().unwrap());
            })
            .await;
        answer.refused(Code::InvalidArgument, "INVALID_METADATA", "authorization");
    }
    let answer = raw
        .call(IDENTITY, a, &GetIdentityRequest {}, |request| {
            request.headers_mut().insert("latchkey-on-behalf-of", "acme/users/owner,acme/users/admin".parse().unwrap());
        })
        .await;
    answer.refused(Code::InvalidArgument, "INVALID_METADATA", "latchkey-on-behalf-of");
}
