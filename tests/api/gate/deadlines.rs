//! `grpc-timeout`: read strictly, counted from the call's arrival, and kept for streams too.

use std::time::Duration;

use latchkey::proto::{AwaitPropagationRequest, GetIdentityRequest, VerifyTokenRequest, WatchEventsRequest};
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, codegen::http};

use super::raw::*;
use crate::support::{Server, World};

const IDENTITY: &str = "/latchkey.v1.TokenService/GetIdentity";
const VERIFY: &str = "/latchkey.v1.TokenService/VerifyToken";
const STREAM: &str = "/latchkey.v1.TokenService/StreamVerifyTokens";
const WATCH: &str = "/latchkey.v1.EventService/WatchEvents";
const HEALTH: &str = "/grpc.health.v1.Health/Watch";

fn within(timeout: &'static str) -> impl Fn(&mut http::Request<Vec<Step>>) {
    move |request| _ = request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_timeout_is_refused_by_name_on_every_kind_of_call() {
    let server = Server::start().await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    for timeout in
        ["garbage", "-1S", "+1S", "123456789S", "1", "S", "", "1 S", "1s", "1.5S", "1S,2S", "0x1S", "1h", "１S"]
    {
        for path in [IDENTITY, VERIFY, STREAM, WATCH, HEALTH] {
            let answer = raw
                .call(path, token, &GetIdentityRequest {}, |request| {
                    let value = http::HeaderValue::from_bytes(timeout.as_bytes()).unwrap();
                    request.headers_mut().insert("grpc-timeout", value);
                })
                .await;
            answer.refused(Code::InvalidArgument, "INVALID_METADATA", "grpc-timeout");
        }
    }
    let twice = raw
        .call(IDENTITY, token, &GetIdentityRequest {}, |request| {
            within("1S")(request);
            request.headers_mut().append("grpc-timeout", "1S".parse().unwrap());
        })
        .await;
    twice.refused(Code::InvalidArgument, "INVALID_METADATA", "grpc-timeout");
    for timeout in ["99999999H", "1H", "5M", "30S", "99999m", "99999999u", "00000030S"] {
        let answer = raw.call(IDENTITY, token, &GetIdentityRequest {}, within(timeout)).await;
        assert_eq!(answer.status.code(), Code::Ok, "{timeout}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_is_deadline_exceeded_with_a_reason() {
    let world = World::start().await;
    let raw = Raw::connect(world.server.running.address()).await;
    let token = &world.server.operator.token;
    // Past before anything can be done.
    for path in [IDENTITY, VERIFY, STREAM, WATCH] {
        let answer = raw.call(path, token, &GetIdentityRequest {}, within("0n")).await;
        assert!(answer.data.is_empty());
        answer.refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "grpc-timeout");
    }
    // While the message is awaited.
    let mut request = request(IDENTITY, token, vec![Step::Hang]);
    within("200m")(&mut request);
    let begun = Instant::now();
    raw.send(request).await.refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "grpc-timeout");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    // The handler's own answer comes before it.
    let question = VerifyTokenRequest { token: token.clone(), ..Default::default() };
    let revision = Some(latchkey::proto::Revision { epoch: 1, number: 1_000_000 });
    let answer =
        raw.call(VERIFY, token, &VerifyTokenRequest { min_revision: revision, ..question }, within("400m")).await;
    answer.refused(Code::Unavailable, "REVISION_NOT_REACHED", "");
    let path = "/latchkey.v1.EventService/AwaitPropagation";
    let answer = raw.call(path, token, &AwaitPropagationRequest::default(), within("2S")).await;
    assert_eq!(answer.status.code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streams_deadline_ends_the_stream_with_its_status() {
    let server = Server::start().await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    let watch = frame(&WatchEventsRequest::default().encode_to_vec());
    let check = frame(&[]);
    for (path, steps) in
        [(WATCH, vec![Step::Data(watch)]), (HEALTH, vec![Step::Data(check)]), (STREAM, vec![Step::Hang])]
    {
        let mut request = request(path, token, steps);
        within("700m")(&mut request);
        let begun = Instant::now();
        let response = raw.begin(request).await;
        let answer = read(response).await;
        answer.refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "grpc-timeout");
        assert!(begun.elapsed() >= Duration::from_millis(700), "{path}");
    }
}
