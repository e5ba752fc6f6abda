use http::uri::PathAndQuery;
use tonic::{Code, Request, client::Grpc};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request,
    server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use super::*;

const BYTES_MAX: usize = 1_000;

async fn check(routes: Routes, service: &str) -> Result<i32, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(routes).check(request).await.map(|response| response.into_inner().status)
}

fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

async fn call<M: prost::Message + Default + 'static>(path: &'static str, message: M) -> Status {
    let mut client = Grpc::new(unauthenticated_services(BYTES_MAX).await.0);
    client.ready().await.expect("always ready");
    let path = PathAndQuery::from_static(path);
    let answer = client.unary(Request::new(message), path, ProstCodec::<M, HealthCheckRequest>::default()).await;
    answer.expect_err("refused")
}

#[tokio::test]
async fn health_reports_not_serving_until_it_is_set() {
    let (routes, health) = unauthenticated_services(BYTES_MAX).await;
    for name in HEALTH_NAMES {
        assert_eq!(check(routes.clone(), name).await.expect("known"), 2, "{name}");
    }
    set_serving(&health, true).await;
    for name in HEALTH_NAMES {
        assert_eq!(check(routes.clone(), name).await.expect("known"), 1, "{name}");
    }
}

#[tokio::test]
async fn refusals_of_the_transport_get_a_reason() {
    let large = HealthCheckRequest { service: "x".repeat(BYTES_MAX + 1) };
    let status = call("/grpc.health.v1.Health/Check", large).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status).as_deref(), Some("QUOTA_EXCEEDED"));

    let other_type = prost_types::Timestamp { seconds: 5, nanos: 0 };
    let status = call("/grpc.health.v1.Health/Check", other_type).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status).as_deref(), Some("INVALID_FIELD"));

    for path in ["/grpc.health.v1.Health/NoSuchMethod", "/no.such.Service/Method"] {
        let status = call(path, HealthCheckRequest::default()).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(reason(&status).as_deref(), Some("NOT_IMPLEMENTED"), "{path}");
        assert!(!status.message().is_empty(), "{path}");
    }

    let status = check(unauthenticated_services(BYTES_MAX).await.0, "no.such.Service").await.expect_err("unknown");
    assert_eq!((status.code(), reason(&status).as_deref()), (Code::NotFound, Some("NOT_FOUND")));
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let message = server_reflection_request::MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut client = ServerReflectionClient::new(unauthenticated_services(BYTES_MAX).await.0);
    let stream = client.server_reflection_info(tokio_stream::iter([request])).await.expect("open to all");
    let answer = stream.into_inner().message().await.expect("an answer").and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "latchkey.v1.ApiKeyService",
        "latchkey.v1.DirectoryService",
        "latchkey.v1.EventService",
        "latchkey.v1.TokenService",
    ];
    assert_eq!(names, expected);
}
