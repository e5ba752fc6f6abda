//! `:authority` is what a client's target looks like, and nothing here reads it: any will do.

use latchkey::proto::GetIdentityRequest;

use crate::support::{
    Server,
    raw::{CONTINUATION, DATA, END_HEADERS, END_STREAM, End, HEADERS, Raw, frame, message, text},
};

const GET_IDENTITY: &str = "/latchkey.v1.TokenService/GetIdentity";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_authority_is_served_again_and_again() {
    let server = Server::start().await;
    let body = message(&GetIdentityRequest {});
    let long = "replica.example.com:50051,".repeat(100);
    for authority in [
        "localhost:50051",
        "127.0.0.1:51011,127.0.0.1:51012",
        "[::1]:1,[::1]:2",
        "a%2Cb",
        "/run/latchkey.sock",
        "%2Frun%2Flatchkey.sock",
        "unix:///run/latchkey.sock",
        "dns:///latchkey:50051",
        "a:1:2:3",
        "user@",
        "a b",
        "ü",
        &long,
    ] {
        let mut raw = Raw::connect(server.running.address(), 65_535).await;
        for _ in 0..3 {
            let block = raw.headers(GET_IDENTITY, &server.operator.token, authority.as_bytes());
            let id = raw.id();
            raw.send(&[frame(HEADERS, END_HEADERS, id, &block), frame(DATA, END_STREAM, id, &body)].concat()).await;
            let end = raw.end(id).await;
            assert!(matches!(end, End::Message(_)), "{authority:?}: {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_served_in_whatever_pieces_its_headers_come() {
    let server = Server::start().await;
    let body = message(&GetIdentityRequest {});
    let mut raw = Raw::connect(server.running.address(), 65_535).await;
    // In frames that end within the value, each byte a packet of its own; padded, with a priority; never to be indexed.
    let block = raw.headers(GET_IDENTITY, &server.operator.token, b"a:1,b:2");
    let id = raw.id();
    let frames = [
        frame(HEADERS, 0, id, &block[..6]),
        frame(CONTINUATION, 0, id, &block[6..8]),
        frame(CONTINUATION, END_HEADERS, id, &block[8..]),
        frame(DATA, END_STREAM, id, &body),
    ];
    for byte in frames.concat() {
        raw.send(&[byte]).await;
    }
    assert!(matches!(raw.end(id).await, End::Message(_)));
    let block = raw.headers(GET_IDENTITY, &server.operator.token, b"");
    let never = [&block[..2], &[0x11], &text(b"c:3,d:4"), &block[3..]].concat();
    let padded = [&[3, 0, 0, 0, 0, 7][..], &never, &[0; 3]].concat();
    let id = raw.id();
    raw.send(&[frame(HEADERS, END_HEADERS | 0x28, id, &padded), frame(DATA, END_STREAM, id, &body)].concat()).await;
    assert!(matches!(raw.end(id).await, End::Message(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_with_a_list_of_replicas_is_served() {
    // h2's own encoder writes what it can in Huffman's code.
    let server = Server::start().await;
    let stream = tokio::net::TcpStream::connect(server.running.address()).await.unwrap();
    let connecting = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .handshake(hyper_util::rt::TokioIo::new(stream));
    let (mut client, connection) = connecting.await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = http::Request::post(format!("http://[::1:50051:latchkey]{GET_IDENTITY}"))
            .header("content-type", "application/grpc")
            .header("authorization", crate::support::bearer(&server.operator.token))
            .body(tonic::body::Body::empty());
        let Ok(request) = request else { return };
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}
