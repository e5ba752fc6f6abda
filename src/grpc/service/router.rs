//! All services of a server, put together. Knows no socket and no runtime: the server adds those.

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

use super::{
    api_key_service::ApiKeys, directory_service::Directory, entry::Entry, event_service::Events, token_service::Tokens,
};
use crate::{
    app::App,
    grpc::{status::Refusal, stream::drain::Draining, streams::token_service_server::TokenServiceServer},
    proto::{
        api_key_service_server::{self, ApiKeyServiceServer},
        directory_service_server::{self, DirectoryServiceServer},
        event_service_server::{self, EventServiceServer},
        token_service_server,
    },
};

/// The contract as compiled, for reflection and for the names of methods.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/latchkey_descriptor.bin"));

/// The calls that the door answers itself: see `build.rs`, which leaves them out of their service.
pub(crate) const VERIFY_TOKEN: &str = "/latchkey.v1.TokenService/VerifyToken";
/// As [`VERIFY_TOKEN`].
pub(crate) const VERIFY_TOKENS: &str = "/latchkey.v1.TokenService/VerifyTokens";

/// Names that health is reported for: the server as a whole, then each service.
const HEALTH_NAMES: [&str; 5] = [
    "",
    api_key_service_server::SERVICE_NAME,
    directory_service_server::SERVICE_NAME,
    event_service_server::SERVICE_NAME,
    token_service_server::SERVICE_NAME,
];

/// The services' bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest request message.
    pub message_bytes_max: usize,
    /// Messages of one StreamVerifyTokens stream that may be unanswered; beyond them none is read.
    pub stream_in_flight_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { message_bytes_max: 4 << 20, stream_in_flight_max: 64 }
    }
}

/// What a server serves.
pub struct Services {
    /// Every service, by the path of its calls.
    pub routes: Routes,
    /// Reports NOT_SERVING until [`set_serving`] says otherwise.
    pub health: HealthReporter,
}

/// Puts the services together, to be served behind a [`crate::grpc::Door`]: they take the caller from there. Streams end once
/// `draining` completes.
pub async fn services(app: App, settings: Settings, draining: Draining) -> Services {
    let Settings { message_bytes_max, stream_in_flight_max } = settings;
    let entry = Entry { app };
    let tokens = Tokens { entry: entry.clone(), stream_in_flight_max, draining: draining.clone() };
    let directory = Directory { entry: entry.clone() };
    let api_keys = ApiKeys { entry: entry.clone() };
    let events = Events { entry, draining };
    let explained = explaining(message_bytes_max);
    let (routes, health) = open_services(message_bytes_max).await;
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

/// What needs no caller: health, reflection in both versions (tools still ask for either), and the
/// answer to calls of what does not exist.
async fn open_services(message_bytes_max: usize) -> (Routes, HealthReporter) {
    let (health, service) = health_reporter();
    // tonic-health starts as SERVING.
    set_serving(&health, false).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            // So that grpcurl prints the details of an error as fields rather than bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    let valid = "the descriptors were compiled with this binary";
    let explained = explaining(message_bytes_max);
    let routes = Routes::new(explained.named_layer(service.max_decoding_message_size(message_bytes_max)))
        .add_service(reflection().build_v1().expect(valid))
        .add_service(reflection().build_v1alpha().expect(valid));
    let unknown = || async { Status::from(Refusal::no_such_method()).into_http::<Body>() };
    (Routes::from(routes.into_axum_router().fallback(unknown)), health)
}

/// Reports whether the server can answer, for every name that health knows.
pub async fn set_serving(health: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// Ends the streams that watch health, each after the last status it was given. From then on health
/// knows no name: for a server that drains.
pub async fn end_health(mut health: HealthReporter) {
    for name in HEALTH_NAMES {
        health.clear_service_status(name).await;
    }
}

/// Gives what the transport refuses — a message too large or garbled, an unknown method — a reason,
/// like every other error. Such an answer is headers only, so this looks at nothing else, and wraps
/// each service by itself: a layer around the router would box every call once more.
fn explaining(
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
