//! One message, whole and in time.

use std::time::Duration;

use latchkey::proto::{
    GetIdentityRequest, ListApiKeysRequest, StreamVerifyTokensRequest, TokenCheck, VerifyTokenRequest,
};
use prost::{Message, bytes::Bytes};
use tokio::{sync::oneshot, time::Instant};
use tonic::Code;

use super::raw::*;
use crate::support::{Server, World};

const IDENTITY: &str = "/latchkey.v1.TokenService/GetIdentity";
const VERIFY: &str = "/latchkey.v1.TokenService/VerifyToken";
const STREAM: &str = "/latchkey.v1.TokenService/StreamVerifyTokens";
const LIST: &str = "/latchkey.v1.ApiKeyService/ListApiKeys";
const UNARY: [&str; 3] = [IDENTITY, VERIFY, LIST];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unary_call_has_one_message_and_nothing_else() {
    let server = Server::start().await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    let data = |bytes: &[u8]| Step::Data(Bytes::copy_from_slice(bytes));
    let one = frame(&[]);
    for path in UNARY {
        let send = async |steps: Vec<Step>, names: &str| {
            raw.send(request(path, token, steps)).await.refused(Code::InvalidArgument, "INVALID_FIELD", names);
        };
        send(vec![], "there is no message").await;
        send(vec![data(&[])], "there is no message").await;
        send(vec![data(&[0, 0, 0])], "ends before").await;
        send(vec![data(&[0, 0, 0, 0, 9]), data(b"short")], "ends before").await;
        send(vec![data(&[one.as_ref(), &one].concat())], "more than one message").await;
        send(vec![data(&one), data(&one)], "more than one message").await;
        send(vec![data(&one), data(&[0])], "more than one message").await;
        send(vec![data(&[1, 0, 0, 0, 0])], "compressed").await;
        send(vec![data(&[7, 0, 0, 0, 0])], "compressed").await;
        send(vec![data(&frame(&[0x0f, 0xff, 0xff]))], "cannot be decoded").await;
        // As soon as the prefix says so: the rest never comes.
        let large = raw.send(request(path, token, vec![data(&[0, 0xff, 0xff, 0xff, 0xff]), Step::Hang])).await;
        large.refused(Code::ResourceExhausted, "QUOTA_EXCEEDED", "message_bytes");
    }
    // In pieces, it is the same message.
    let request_of = |path, message: Vec<u8>| {
        let steps = frame(&message).chunks(3).map(|piece| Step::Data(Bytes::copy_from_slice(piece))).collect();
        request(path, token, steps)
    };
    let question = VerifyTokenRequest { token: token.to_owned(), ..Default::default() };
    for (path, message) in [(VERIFY, question.encode_to_vec()), (IDENTITY, GetIdentityRequest {}.encode_to_vec())] {
        assert_eq!(raw.send(request_of(path, message)).await.status.code(), Code::Ok, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_end_is_cut() {
    let server = Server::start_with(|flags| flags.with("request_message_timeout_ms", "500")).await;
    let (raw, token) = (Raw::connect(server.running.address()).await, server.operator.token.as_str());
    let begun = || vec![Step::Data(Bytes::from_static(&[0, 0, 0, 0, 200, 1])), Step::Hang];
    let dripped = || vec![Step::Drip(frame(&[0; 200]), Duration::from_millis(100))];
    for path in [IDENTITY, VERIFY, LIST, STREAM] {
        for steps in [begun(), dripped()] {
            let since = Instant::now();
            let answer = raw.send(request(path, token, steps)).await;
            answer.refused(Code::DeadlineExceeded, "MESSAGE_UNFINISHED", "500 ms");
            assert!(since.elapsed() >= Duration::from_millis(500), "{path}");
        }
    }
    // The library that answers reflection ends such a stream without a status of its own.
    let reflection = request("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", begun());
    assert!(raw.send(reflection).await.data.is_empty());
    // Nothing at all is no better, nor a message without an end of the call; without a caller alike.
    for path in [IDENTITY, VERIFY, "/grpc.health.v1.Health/Check", "/latchkey.v1.TokenService/RevokeToken"] {
        for steps in [vec![Step::Hang], vec![Step::Data(frame(&[])), Step::Hang]] {
            raw.send(request(path, token, steps)).await.refused(Code::DeadlineExceeded, "MESSAGE_UNFINISHED", "");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_be_idle_between_messages() {
    let server = Server::start_with(|flags| flags.with("request_message_timeout_ms", "300")).await;
    let caller = &server.operator;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = caller.tokens().stream_verify_tokens(messages).await.unwrap().into_inner();
    for correlation_id in 0..3 {
        let check = TokenCheck { token: caller.token.clone(), requirement: None };
        let message = StreamVerifyTokensRequest { correlation_id, checks: vec![check], ..Default::default() };
        sender.send(message).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().correlation_id, correlation_id);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_as_large_as_its_method_and_its_caller_need() {
    let world = World::start().await;
    let raw = Raw::connect(world.server.running.address()).await;
    let of = |bytes: usize| ListApiKeysRequest { page_token: "x".repeat(bytes), ..Default::default() };
    let send = async |path: &str, token: &str, bytes| raw.call(path, token, &of(bytes), |_| {}).await;
    let too_large = |answer: Answer| answer.refused(Code::ResourceExhausted, "QUOTA_EXCEEDED", "message_bytes");
    too_large(send(LIST, &world.server.operator.token, 100_000).await);
    too_large(send(IDENTITY, &world.server.operator.token, 100_000).await);
    too_large(send("/grpc.health.v1.Health/Check", "", 5_000).await);
    too_large(send("/latchkey.v1.TokenService/RevokeToken", "anything", 5_000).await);
    // Large batches are for those who may send them: the others' are not even read.
    let batch = "/latchkey.v1.DirectoryService/BatchUpsertUsers";
    too_large(send(batch, &world.verifier.token, 1_000_000).await);
    too_large(send("/latchkey.v1.TokenService/VerifyTokens", &world.directory.token, 1_000_000).await);
    let read = send(batch, &world.directory.token, 1_000_000).await;
    assert_ne!(read.status.code(), Code::ResourceExhausted, "{:?}", read.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_need_no_caller_are_bounded_in_number() {
    let server = Server::start_with(|flags| flags.with("open_calls_max", "2")).await;
    let raw = Raw::connect(server.running.address()).await;
    let watch = "/grpc.health.v1.Health/Watch";
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for path in [watch, reflection] {
        let (first, second) = (oneshot::channel(), oneshot::channel());
        let steps = |until| vec![Step::Until(until)];
        let one_message = || vec![Step::Data(frame(&[]))];
        let begin = async |until| {
            let steps = if path == watch { one_message() } else { steps(until) };
            raw.begin(request(path, "", steps)).await
        };
        let open = (begin(first.1).await, begin(second.1).await);
        raw.send(request(path, "", one_message())).await.refused(Code::ResourceExhausted, "OVERLOADED", "open");
        drop((open, first.0, second.0));
        // They are given back when their clients have gone.
        for tries in 0.. {
            let again = raw.begin(request(path, "", one_message())).await;
            if !again.headers().contains_key("grpc-status") {
                break;
            }
            assert!(tries < 100, "{path} has no room again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let check = raw.send(request("/grpc.health.v1.Health/Check", "", vec![Step::Data(frame(&[]))])).await;
    assert_eq!(check.status.code(), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_messages_find_room_or_are_refused_and_one_account_does_not_take_it_all() {
    let bounds = |flags: latchkey::settings::Flags| {
        flags.with("requests_memory_bytes_max", "1048576").with("request_bytes_max", "200000")
    };
    let world = World::on(Server::start_with(bounds).await).await;
    let raw = Raw::connect(world.server.running.address()).await;
    let batch = "/latchkey.v1.DirectoryService/BatchUpsertUsers";
    let half = || vec![Step::Data([&[0, 0, 3, 0, 0][..], &[0; 150_000]].concat().into()), Step::Hang];
    let token = world.server.operator.token.as_str();
    let mut open = futures(&raw, batch, token, half, 8);
    // A quarter of 1 MiB has room for one of them.
    let refused = open.recv().await.expect("one is refused");
    refused.refused(Code::ResourceExhausted, "OVERLOADED", "memory");
    let owner = world.user("owner");
    crate::calls::list(&owner).await.expect("another account is served");
}

/// Sends so many calls at once; their answers, as they come.
fn futures(
    raw: &Raw,
    path: &str,
    token: &str,
    steps: impl Fn() -> Vec<Step>,
    count: usize,
) -> tokio::sync::mpsc::Receiver<Answer> {
    let (sender, receiver) = tokio::sync::mpsc::channel(count);
    for _ in 0..count {
        let (raw, sender, request) = (raw.again(), sender.clone(), request(path, token, steps()));
        tokio::spawn(async move { _ = sender.send(raw.send(request).await).await });
    }
    receiver
}
