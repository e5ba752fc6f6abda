//! What a service that calls Latchkey builds with (`--no-default-features --features client`): the messages and the
//! generated clients.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use latchkey::proto::{Requirement, VerifyTokenRequest, token_service_client::TokenServiceClient};
use prost::Message;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Body as _, Service, http},
};

/// The request's bytes as the contract fixes them: field number and wire type, length, text.
const ENCODED: &[u8] = b"\x0a\x04lk_x\x12\x16\x0a\x04acme\x12\x0eincidents.view";

/// A call as it arrives: its path, and the bytes of its body.
type Arrived = (String, Vec<u8>);

/// A server that refuses every call, and keeps what arrived.
#[derive(Clone, Default)]
struct Refusing(Arc<Mutex<Vec<Arrived>>>);

impl Service<http::Request<Body>> for Refusing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let mut body = pin!(body);
        let mut bytes = Vec::new();
        while let Some(frame) = at_once(|context| body.as_mut().poll_frame(context)) {
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        self.0.lock().unwrap().push((parts.uri.path().to_owned(), bytes));
        ready(Ok(Status::unavailable("").into_http()))
    }
}

/// The outcome of what has nothing to wait for.
fn at_once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> T {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("this waits for something"),
    }
}

fn request() -> VerifyTokenRequest {
    let requirement =
        Requirement { account_id: "acme".to_owned(), permission: "incidents.view".to_owned(), team_ids: Vec::new() };
    VerifyTokenRequest { token: "lk_x".to_owned(), requirement: Some(requirement), min_revision: None }
}

#[test]
fn a_message_is_encoded_as_the_contract_says() {
    assert_eq!(request().encode_to_vec(), ENCODED);
    // Not assert_eq: a message that carries a token has no Debug (K4).
    assert!(VerifyTokenRequest::decode(ENCODED).is_ok_and(|decoded| decoded == request()));
}

#[test]
fn a_generated_client_sends_a_call_and_hands_back_its_status() {
    let server = Refusing::default();
    let mut client = TokenServiceClient::new(server.clone());
    let mut call = pin!(client.verify_token(request()));

    let status = at_once(|context| call.as_mut().poll(context)).unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
    // gRPC's own prefix: not compressed, and the length.
    let framed = [&[0, 0, 0, 0, ENCODED.len().try_into().unwrap()], ENCODED].concat();
    assert_eq!(*server.0.lock().unwrap(), [("/latchkey.v1.TokenService/VerifyToken".to_owned(), framed)]);
}
