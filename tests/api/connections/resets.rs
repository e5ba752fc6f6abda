//! Cancelled calls harm no client but a flooder.

use latchkey::proto::{ListApiKeysRequest, VerifyTokenRequest};

use crate::support::{
    Server,
    raw::{self, DATA, END_HEADERS, End, HEADERS, RST_STREAM, Raw, frame, message},
};

const LIST: &str = "/latchkey.v1.ApiKeyService/ListApiKeys";
const VERIFY: &str = "/latchkey.v1.TokenService/VerifyToken";
const CANCEL: [u8; 4] = 8u32.to_be_bytes();

fn list() -> Vec<u8> {
    message(&ListApiKeysRequest { account_id: "system".into(), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_that_are_cancelled_at_once_leave_the_others_alone() {
    let server = Server::start().await;
    let token = server.operator.token.as_str();
    let mut raw = Raw::connect(server.running.address(), 65_535).await;
    // An innocent call that is not over before them.
    let block = raw.headers(VERIFY, token, b"latchkey");
    let innocent = raw.id();
    raw.send(&frame(HEADERS, END_HEADERS, innocent, &block)).await;
    for count in [100, 1_000] {
        let mut burst = vec![];
        for _ in 0..count {
            let (id, call) = raw.call(LIST, token, &list());
            burst.extend(call);
            burst.extend(frame(RST_STREAM, 0, id, &CANCEL));
        }
        raw.send(&burst).await;
    }
    // And calls that are cancelled while they run.
    for _ in 0..10 {
        let calls: Vec<_> = (0..50).map(|_| raw.call(LIST, token, &list())).collect();
        for (_, call) in &calls {
            raw.send(call).await;
        }
        let resets: Vec<u8> = calls.iter().flat_map(|(id, _)| frame(RST_STREAM, 0, *id, &CANCEL)).collect();
        raw.send(&resets).await;
    }
    let question = message(&VerifyTokenRequest { token: token.into(), ..Default::default() });
    raw.send(&frame(DATA, raw::END_STREAM, innocent, &question)).await;
    assert!(matches!(raw.end(innocent).await, End::Message(_)));
}

/// Clients send a message right after its headers, but not always together; a proxy carries the calls of many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_refused_before_their_message_has_come_leave_the_others_alone() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.running.address(), 65_535).await;
    let question = message(&VerifyTokenRequest { token: server.operator.token.clone(), ..Default::default() });
    for _ in 0..60 {
        let mut calls = vec![];
        for path in [VERIFY, LIST, "/no.such.Service/Method"].into_iter().cycle().take(50) {
            let block = raw.headers(path, "nobody's", b"latchkey");
            let id = raw.id();
            raw.send(&frame(HEADERS, END_HEADERS, id, &block)).await;
            calls.push(id);
        }
        for id in &calls {
            assert_eq!(raw.end(*id).await, End::Status);
        }
        for id in &calls {
            raw.send(&frame(DATA, raw::END_STREAM, *id, &question)).await;
        }
    }
    let token = server.operator.token.as_str();
    // Refused for the length that their prefix says; the rest is sent all the same.
    for _ in 0..100 {
        let block = raw.headers(LIST, token, b"latchkey");
        let id = raw.id();
        raw.send(&frame(HEADERS, END_HEADERS, id, &block)).await;
        raw.send(&frame(DATA, 0, id, &[0, 0, 16, 0, 0])).await;
        assert_eq!(raw.end(id).await, End::Status);
        let rest: Vec<u8> = (0..15).flat_map(|_| frame(DATA, 0, id, &[0; 16_000])).collect();
        raw.send(&rest).await;
        raw.send(&frame(DATA, raw::END_STREAM, id, &[])).await;
    }
    let (id, call) = raw.call(VERIFY, token, &question);
    raw.send(&call).await;
    assert!(matches!(raw.end(id).await, End::Message(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_meet_one_short_deadline_leave_the_others_alone() {
    let server = Server::start().await;
    let calls = (0..300).map(|number| {
        let mut keys = server.operator.keys();
        tokio::spawn(async move {
            let mut request =
                tonic::Request::new(ListApiKeysRequest { account_id: "system".into(), ..Default::default() });
            if number % 3 > 0 {
                request.set_timeout(std::time::Duration::from_millis(20));
            }
            (number, keys.list_api_keys(request).await)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (number, answer) = call.await.unwrap();
        assert!(number % 3 > 0 || answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooder_is_cut_and_its_neighbours_are_served() {
    let server = Server::start().await;
    let token = server.operator.token.as_str();
    let ping = frame(raw::PING, 0, 0, &[7; 8]);
    let window = frame(raw::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let settings = frame(raw::SETTINGS, 0, 0, &[]);
    for (name, control) in
        [("resets", None), ("PING", Some(ping)), ("WINDOW_UPDATE", Some(window)), ("SETTINGS", Some(settings))]
    {
        let mut raw = Raw::connect(server.running.address(), 65_535).await;
        let mut sent = 0;
        let cut = loop {
            let mut burst = vec![];
            for _ in 0..500 {
                match &control {
                    Some(frame) => burst.extend_from_slice(frame),
                    None => {
                        let (id, call) = raw.call(LIST, token, &list());
                        burst.extend(call);
                        burst.extend(frame(RST_STREAM, 0, id, &CANCEL));
                    }
                }
            }
            let wrote = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &burst);
            match tokio::time::timeout(std::time::Duration::from_secs(5), wrote).await {
                // It is far behind, or has given up.
                Err(_) => {
                    raw.closed().await;
                    break true;
                }
                Ok(Err(_)) => break true,
                Ok(Ok(())) => sent += 500,
            }
            if sent >= 100_000 {
                // Written is not read: the server may be far behind.
                raw.closed().await;
                break true;
            }
            // Its answers are read: only a flood of frames is to be seen here.
            let mut bin = [0; 65_536];
            while raw.stream.try_read(&mut bin).is_ok_and(|read| read > 0) {}
        };
        assert!(cut, "{name}: {sent} frames were taken");
        let request = VerifyTokenRequest { token: token.into(), ..Default::default() };
        server.operator.tokens().verify_token(request).await.expect("others are served");
    }
}
