//! The socket: HTTP/2 with bounds, health that follows the lease, a drain that ends.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Server, server::TcpIncoming};

use super::stage::{Stage, Stages};
use crate::{
    app::App,
    grpc::{self, Services},
    settings::Settings,
    telemetry::{GrpcLayer, MethodTable, Metrics},
};

/// Streams that one connection may have open; each costs memory.
const CONCURRENT_STREAMS_MAX: u32 = 1_000;
/// All headers of a request: a token and a user fit many times over.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// A peer that went away without a word is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often health looks at the lease.
const HEALTH_PERIOD: Duration = Duration::from_millis(200);
/// How long no connection is taken after one could not be (no file descriptors, most likely): the connections that
/// there are need the processor more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that is listened on.
pub(super) struct Bound {
    pub address: SocketAddr,
    incoming: TcpIncoming,
}

pub(super) async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Bound { address, incoming })
}

/// Serves until the server drains, and then until running calls have ended.
pub(super) async fn serve(bound: Bound, app: App, settings: Settings, metrics: Arc<Metrics>, stages: Stages) {
    let bounds = grpc::Settings {
        message_bytes_max: settings.request_bytes_max,
        stream_in_flight_max: settings.stream_in_flight_max,
    };
    let draining = stages.reached(Stage::Draining).boxed().shared();
    let Services { routes, health } = grpc::services(app.clone(), bounds, draining).await;
    let methods = Arc::new(MethodTable::from_descriptor_sets(&[grpc::DESCRIPTORS]).expect("compiled with this binary"));
    let reporting = report_health(app, health, stages.reached(Stage::Draining));
    let server = Server::builder()
        .layer(GrpcLayer::new(methods, metrics))
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_connection_age(Duration::from_secs(settings.connection_age_max_s))
        .max_connection_age_grace(Duration::from_secs(settings.connection_age_grace_s))
        .add_routes(routes)
        .serve_with_incoming_shutdown(unhurried(bound.incoming), stages.reached(Stage::Draining));
    tokio::pin!(server);
    let result = tokio::select! {
        result = &mut server => result,
        () = reporting => server.await,
    };
    if let Err(error) = result {
        tracing::error!(error = %error, "the listener failed");
    }
}

/// Connections as they come; after a failure there is a pause before the next, where tonic would try again at once.
fn unhurried(incoming: TcpIncoming) -> impl Stream<Item = io::Result<TcpStream>> {
    incoming.then(|accepted| async {
        if let Err(error) = &accepted {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    })
}

/// Health says SERVING while this replica holds its lease, and NOT_SERVING from the beginning of the drain. Then the
/// streams that watch it end: they would never end by themselves, and keep every drain waiting.
async fn report_health(app: App, health: tonic_health::server::HealthReporter, draining: impl Future<Output = ()>) {
    tokio::select! {
        () = follow_lease(&app, &health) => {}
        () = draining => {}
    }
    grpc::set_serving(&health, false).await;
    grpc::end_health(health).await;
}

/// Health says SERVING while this replica answers from memory: with its lease, or, if it is allowed to,
/// marked as stale for a while after. Nobody holds a lease on a history that was not accepted.
async fn follow_lease(app: &App, health: &tonic_health::server::HealthReporter) {
    let mut ticks = tokio::time::interval(HEALTH_PERIOD);
    let mut serving = false;
    loop {
        ticks.tick().await;
        if app.verifier().in_service() != serving {
            serving = !serving;
            grpc::set_serving(health, serving).await;
        }
    }
}
