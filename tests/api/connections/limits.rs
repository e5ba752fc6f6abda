//! Connections that say or do nothing, and how many there may be.

use std::time::Duration;

use latchkey::proto::GetIdentityRequest;
use tokio::time::{Instant, timeout};

use crate::support::{
    Caller, Server,
    raw::{End, HEADERS, PREFACE, Raw, frame, message},
    server::connect,
};

const GET_IDENTITY: &str = "/latchkey.v1.TokenService/GetIdentity";

async fn is_served(server: &Server) {
    let channel = connect(server.running.address()).await;
    let caller = Caller { channel, ..server.operator.clone() };
    timeout(Duration::from_secs(10), caller.tokens().get_identity(GetIdentityRequest {}))
        .await
        .expect("in time")
        .expect("an identity");
}

async fn calls(raw: &mut Raw, token: &str) -> End {
    let (id, call) = raw.call(GET_IDENTITY, token, &message(&GetIdentityRequest {}));
    raw.send(&call).await;
    raw.end(id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_say_what_it_must_is_cut_after_the_handshake_time() {
    let server = Server::start_with(|flags| flags.with("connection_handshake_ms", "1000")).await;
    let address = server.running.address();
    let began = Instant::now();
    let mut cut = tokio::task::JoinSet::new();
    for said in [&b""[..], b"PRI * HTTP/2", PREFACE, &[PREFACE, &[0, 0, 6, 4, 0]].concat()] {
        let mut raw = Raw::silent(address).await;
        raw.send(said).await;
        cut.spawn(async move { raw.closed().await });
    }
    // A byte now and then does not help; nor do headers that never end.
    let mut raw = Raw::silent(address).await;
    cut.spawn(async move {
        for byte in PREFACE {
            let written = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &[*byte]).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            if written.is_err() {
                return;
            }
        }
        raw.closed().await;
    });
    let mut raw = Raw::connect(address, 65_535).await;
    cut.spawn(async move {
        let block = raw.headers(GET_IDENTITY, "nobody's", b"latchkey");
        let id = raw.id();
        raw.send(&frame(HEADERS, 0, id, &block)).await;
        raw.closed().await;
    });
    cut.join_all().await;
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&took), "{took:?}");
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_call_is_asked_to_end() {
    let server = Server::start_with(|flags| flags.with("connection_idle_max_s", "1")).await;
    let mut raw = Raw::connect(server.running.address(), 65_535).await;
    assert!(matches!(calls(&mut raw, &server.operator.token).await, End::Message(_)));
    let mut goodbye = false;
    let all = async {
        while let Some((kind, ..)) = raw.read().await {
            goodbye |= kind == crate::support::raw::GOAWAY;
        }
    };
    timeout(Duration::from_secs(15), all).await.expect("it is closed");
    assert!(goodbye, "its client is sent GOAWAY first");
    // Its callers come back; one call may have been on its way to the old one.
    is_served(&server).await;
    let mut tries = 0;
    while server.operator.tokens().get_identity(GetIdentityRequest {}).await.is_err() {
        tries += 1;
        assert!(tries < 10, "no server answers");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_so_many_connections_and_those_that_never_called_make_room() {
    let server = Server::start_with(|flags| flags.with("connections_per_peer_max", "5")).await;
    let address = server.running.address();
    // One is the operator's, which is in use.
    assert!(server.operator.tokens().get_identity(GetIdentityRequest {}).await.is_ok());
    let mut used = vec![];
    for _ in 0..3 {
        let mut raw = Raw::connect(address, 65_535).await;
        assert!(matches!(calls(&mut raw, &server.operator.token).await, End::Message(_)));
        used.push(raw);
    }
    let mut silent = Raw::silent(address).await;
    for _ in 0..20 {
        let next = Raw::silent(address).await;
        std::mem::replace(&mut silent, next).closed().await;
    }
    is_served(&server).await;
    silent.closed().await;
    for raw in &mut used {
        assert!(matches!(calls(raw, &server.operator.token).await, End::Message(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_closed_at_once_and_served_when_there_is_room() {
    let server = Server::start_with(|flags| flags.with("connections_max", "3")).await;
    let address = server.running.address();
    assert!(server.operator.tokens().get_identity(GetIdentityRequest {}).await.is_ok());
    let mut used = vec![];
    for _ in 0..2 {
        let mut raw = Raw::connect(address, 65_535).await;
        assert!(matches!(calls(&mut raw, &server.operator.token).await, End::Message(_)));
        used.push(raw);
    }
    let began = Instant::now();
    for _ in 0..10 {
        Raw::silent(address).await.closed().await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for raw in &mut used {
        assert!(matches!(calls(raw, &server.operator.token).await, End::Message(_)));
    }
    used.pop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    is_served(&server).await;
}
