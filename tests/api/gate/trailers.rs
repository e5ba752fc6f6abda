//! Trailers of a request are not metadata of the call: a proxy that filters headers would be walked around.

use latchkey::proto::{
    GetIdentityRequest, GetIdentityResponse, StreamVerifyTokensRequest, StreamVerifyTokensResponse, TokenCheck,
    VerifyTokenRequest,
};
use prost::Message;
use tonic::{Code, codegen::http};

use super::raw::*;
use crate::support::{World, world::*};

fn trailers(entries: &[(&'static str, String)]) -> Step {
    Step::Trailers(
        entries.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_acts_as_its_headers_said_whatever_its_trailers_say() {
    let world = World::start().await;
    let raw = Raw::connect(world.server.running.address()).await;
    let own = create(&world.user("owner"), ACME, &key("own", &["incidents.view"])).await.unwrap();
    let others = [
        ("authorization", crate::support::bearer(&world.server.operator.token)),
        ("latchkey-on-behalf-of", "acme/users/owner".to_owned()),
        ("grpc-timeout", "0n".to_owned()),
    ];
    let data = || Step::Data(frame(&GetIdentityRequest {}.encode_to_vec()));
    let path = "/latchkey.v1.TokenService/GetIdentity";
    let identity: GetIdentityResponse =
        raw.send(request(path, &own.token, vec![data(), trailers(&others)])).await.message();
    assert_eq!((identity.account_id.as_str(), identity.account_permissions), (ACME, strings(&["incidents.view"])));
    // One who may act for users does not, unless its headers say so.
    let identity: GetIdentityResponse =
        raw.send(request(path, &world.product.token, vec![data(), trailers(&others[1..2])])).await.message();
    assert_eq!((identity.account_id.as_str(), identity.user_id.as_str()), ("system", ""));
    // And none at all is still none.
    let answer = raw.send(request(path, "", vec![data(), trailers(&others)])).await;
    answer.refused(Code::Unauthenticated, "BAD_CREDENTIALS", "");
    // What is refused for a header is not for a trailer.
    let question = VerifyTokenRequest { token: own.token.clone(), ..Default::default() };
    let steps = vec![Step::Data(frame(&question.encode_to_vec())), trailers(&others)];
    let verified = raw.send(request("/latchkey.v1.TokenService/VerifyToken", &world.verifier.token, steps)).await;
    assert_eq!(verified.status.code(), Code::Ok);
    let refused = raw.send(request(
        "/latchkey.v1.TokenService/RevokeToken",
        "lk_x",
        vec![Step::Data(frame(&[])), trailers(&others)],
    ));
    refused.await.refused(Code::Unauthenticated, "BAD_CREDENTIALS", "");
    world
        .server
        .caller(&world.server.operator.token)
        .tokens()
        .get_identity(GetIdentityRequest {})
        .await
        .expect("not revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_well_with_trailers_that_say_nothing() {
    let world = World::start().await;
    let raw = Raw::connect(world.server.running.address()).await;
    let check = TokenCheck { token: world.verifier.token.clone(), requirement: None };
    let message = StreamVerifyTokensRequest { correlation_id: 7, checks: vec![check], ..Default::default() };
    let steps = vec![
        Step::Data(frame(&message.encode_to_vec())),
        trailers(&[("authorization", "Bearer nonsense".to_owned()), ("x", "y".to_owned())]),
    ];
    let path = "/latchkey.v1.TokenService/StreamVerifyTokens";
    let answer: StreamVerifyTokensResponse = raw.send(request(path, &world.verifier.token, steps)).await.message();
    assert_eq!((answer.correlation_id, answer.results.len()), (7, 1));
}
