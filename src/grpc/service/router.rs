//! Puts all services of a server together, without a socket or a runtime.

use http::HeaderMap;
use tonic::{
    Status,
    body::Body,
    service::{LayerExt, Routes},
};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tower::util::MapResponseLayer;

use super::{api_key_service::ApiKeys, directory_service::Directory, event_service::Events, token_service::Tokens};
use crate::{
    app::App,
    grpc::{
        contract::DESCRIPTORS, status::Refusal, stream::drain::Draining,
        streams::token_service_server::TokenServiceServer,
    },
    proto::{
        api_key_service_server::{self, ApiKeyServiceServer},
        directory_service_server::{self, DirectoryServiceServer},
        event_service_server::{self, EventServiceServer},
        token_service_server,
    },
};

/// The names that health is reported for: the server as a whole, then each service.
const HEALTH_NAMES: [&str; 5] = [
    "",
    api_key_service_server::SERVICE_NAME,
    directory_service_server::SERVICE_NAME,
    event_service_server::SERVICE_NAME,
    token_service_server::SERVICE_NAME,
];

/// The bounds of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// The largest request message.
    pub message_bytes_max: usize,
    /// The number of unanswered messages of one StreamVerifyTokens stream at which reading stops.
    pub stream_in_flight_max: usize,
}

/// The services of a server.
pub struct Services {
    /// Routes calls to services by path.
    pub routes: Routes,
    /// Reports NOT_SERVING until [`set_serving`] says otherwise.
    pub health: HealthReporter,
}

/// Builds the services. They must be served behind a [`crate::grpc::Gate`], which authenticates their callers. Streams
/// end once `draining` completes.
pub async fn services(app: App, settings: ServiceLimits, draining: Draining) -> Services {
    let ServiceLimits { message_bytes_max, stream_in_flight_max } = settings;
    let tokens = Tokens { app: app.clone(), stream_in_flight_max, draining: draining.clone() };
    let directory = Directory { app: app.clone() };
    let api_keys = ApiKeys { app: app.clone() };
    let events = Events { app, draining };
    let explained = explain_transport_errors(message_bytes_max);
    let (routes, health) = unauthenticated_services(message_bytes_max).await;
    let routes = routes
        .add_service(
            explained.named_layer(TokenServiceServer::new(tokens).max_decoding_message_size(message_bytes_max)),
        )
        .add_service(
            explained.named_layer(ApiKeyServiceServer::new(api_keys).max_decoding_message_size(message_bytes_max)),
        )
        .add_service(
            explained.named_layer(DirectoryServiceServer::new(directory).max_decoding_message_size(message_bytes_max)),
        )
        .add_service(
            explained.named_layer(EventServiceServer::new(events).max_decoding_message_size(message_bytes_max)),
        );
    Services { routes: routes.prepare(), health }
}

/// Builds what needs no caller: health, reflection in both versions (tools still use either), and the answer to calls
/// of unknown methods.
async fn unauthenticated_services(message_bytes_max: usize) -> (Routes, HealthReporter) {
    let (health, service) = health_reporter();
    // tonic-health starts as SERVING.
    set_serving(&health, false).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            // Lets grpcurl print the details of an error as fields instead of bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    let valid = "the descriptors were compiled with this binary";
    let explained = explain_transport_errors(message_bytes_max);
    let routes = Routes::new(explained.named_layer(service.max_decoding_message_size(message_bytes_max)))
        .add_service(reflection().build_v1().expect(valid))
        .add_service(reflection().build_v1alpha().expect(valid));
    let unknown = || async { Status::from(Refusal::no_such_method()).into_http::<Body>() };
    (Routes::from(routes.into_axum_router().fallback(unknown)), health)
}

/// Sets the health status of every name.
pub async fn set_serving(health: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// Ends the streams that watch health, each after the last status that it was sent. From then on health knows no name:
/// for a server that drains.
pub async fn end_health(mut health: HealthReporter) {
    for name in HEALTH_NAMES {
        health.clear_service_status(name).await;
    }
}

/// Adds a reason to refusals of the transport, such as an undecodable message or an unknown method, so that they look
/// like every other error. Such a response has headers only, so only headers are examined. Each service is wrapped by
/// itself: a layer around the router would box every call once more.
fn explain_transport_errors(
    message_bytes_max: usize,
) -> MapResponseLayer<impl Fn(http::Response<Body>) -> http::Response<Body> + Clone + Send + Sync + 'static> {
    MapResponseLayer::new(move |mut response: http::Response<Body>| {
        explain(response.headers_mut(), message_bytes_max);
        response
    })
}

fn explain(headers: &mut HeaderMap, message_bytes_max: usize) {
    let ours = headers.contains_key(Status::GRPC_STATUS_DETAILS);
    let status = if ours { None } else { Status::from_header_map(headers) };
    if let Some(refusal) = status.and_then(|status| Refusal::of_transport(&status, message_bytes_max)) {
        // Cannot fail: the message is percent-encoded and the details are base64.
        _ = Status::from(refusal).add_header(headers);
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
