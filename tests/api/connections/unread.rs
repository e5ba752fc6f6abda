//! Answers that a client does not read take bounded memory, for a bounded time.

use std::time::Duration;

use latchkey::proto::{GetIdentityRequest, ListApiKeysRequest, TokenCheck, VerifyTokensRequest};
use tokio::time::Instant;
use tonic_types::StatusExt;

use crate::support::{
    Server,
    raw::{End, Raw, WINDOW_UPDATE, frame, message},
    world::{create, key},
};

const LIST: &str = "/latchkey.v1.ApiKeyService/ListApiKeys";
const GET_IDENTITY: &str = "/latchkey.v1.TokenService/GetIdentity";
const WINDOW: u32 = 1 << 20;

fn list() -> Vec<u8> {
    message(&ListApiKeysRequest { account_id: "system".into(), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_beyond_what_a_connection_may_leave_unread_are_refused_and_small_answers_are_not() {
    // Room for one page: while any part of one is unread, no other is made.
    let server = Server::start_with(|flags| flags.with("unread_bytes_per_connection_max", "4194304")).await;
    let token = server.operator.token.as_str();
    let mut raw = Raw::connect(server.running.address(), 0).await;
    let calls: Vec<_> = (0..50).map(|_| raw.call(LIST, token, &list())).collect();
    let began = Instant::now();
    raw.send(&calls.iter().flat_map(|(_, call)| call.clone()).collect::<Vec<u8>>()).await;
    // All wait together.
    for (id, _) in &calls[1..] {
        assert_eq!(raw.end(*id).await, End::Status);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let (identity, call) = raw.call(GET_IDENTITY, token, &message(&GetIdentityRequest {}));
    raw.send(&call).await;
    let first = calls[0].0;
    for id in [identity, first] {
        raw.send(&frame(WINDOW_UPDATE, 0, id, &WINDOW.to_be_bytes())).await;
        assert!(matches!(raw.end(id).await, End::Message(_)));
    }
    // It was read: there is room again.
    let (next, call) = raw.call(LIST, token, &list());
    raw.send(&[call, frame(WINDOW_UPDATE, 0, next, &WINDOW.to_be_bytes())].concat()).await;
    assert!(matches!(raw.end(next).await, End::Message(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_list_says_what_to_do() {
    let server = Server::start_with(|flags| flags.with("unread_bytes_per_connection_max", "4194304")).await;
    // What a well-behaved client gets, whose other half does not read: a window of nothing for one, then another call.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.running.address()))
        .unwrap()
        .initial_stream_window_size(0)
        .connect()
        .await
        .unwrap();
    let caller = crate::support::Caller { channel, ..server.operator.clone() };
    let unread = tokio::spawn({
        let mut keys = caller.keys();
        async move { keys.list_api_keys(ListApiKeysRequest { account_id: "system".into(), ..Default::default() }).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let request = ListApiKeysRequest { account_id: "system".into(), ..Default::default() };
    let refused = caller.keys().list_api_keys(request).await.expect_err("there is no room");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
    assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()));
    unread.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_and_one_that_reads_slowly_is_not() {
    let server = Server::start_with(|flags| flags.with("unread_answer_max_s", "2")).await;
    let token = server.operator.token.as_str();
    let address = server.running.address();
    for number in 0..40 {
        let metadata = [("text".to_owned(), "x".repeat(500))].into();
        let api_key = latchkey::proto::ApiKey { metadata, ..key(&number.to_string(), &["system.events"]) };
        create(&server.operator, "system", &api_key).await.expect("a key");
    }
    for (path, question) in [(GET_IDENTITY, message(&GetIdentityRequest {})), (LIST, list())] {
        let mut raw = Raw::connect(address, 0).await;
        let (_, call) = raw.call(path, token, &question);
        raw.send(&call).await;
        let began = Instant::now();
        raw.closed().await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{path}: {:?}", began.elapsed());
    }
    // A piece of the answer now and then.
    let mut raw = Raw::connect(address, 0).await;
    let (id, call) = raw.call(
        LIST,
        token,
        &message(&ListApiKeysRequest { account_id: "system".into(), page_size: 1_000, ..Default::default() }),
    );
    raw.send(&call).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        raw.send(&frame(WINDOW_UPDATE, 0, id, &17_000u32.to_be_bytes())).await;
    }
    raw.send(&frame(WINDOW_UPDATE, 0, id, &WINDOW.to_be_bytes())).await;
    assert!(matches!(raw.end(id).await, End::Message(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_batches_at_once_are_answered_all() {
    let server = Server::start().await;
    let check = TokenCheck { token: server.operator.token.clone(), requirement: None };
    let batch = VerifyTokensRequest { checks: vec![check; 500], ..Default::default() };
    let calls = (0..200).map(|_| {
        let (mut tokens, batch) = (server.operator.tokens(), batch.clone());
        tokio::spawn(async move { tokens.verify_tokens(batch).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().expect("an answer").into_inner().results.len(), 500);
    }
}
