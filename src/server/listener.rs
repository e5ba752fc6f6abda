//! The socket: connections dealt to cores, health that follows the lease, a drain that ends.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
};
use tower::Layer;

use super::{
    connection::{self, Answer, Calls, Lifetime},
    cores::{Core, Dealer},
    deadline::Deadlines,
    stage::{Stage, Stages},
    turn,
};
use crate::{
    app::App,
    grpc::{self, HotPath, Services},
    settings::Settings,
    telemetry::{GrpcLayer, MethodTable, Metrics},
};

/// How often health looks at the lease.
const HEALTH_PERIOD: Duration = Duration::from_millis(200);
/// How long no connection is taken after one could not be (no file descriptors, most likely): the connections that
/// there are need the processor more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that is listened on.
pub(super) struct Bound {
    pub address: SocketAddr,
    listener: TcpListener,
}

pub(super) async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    Ok(Bound { address: listener.local_addr()?, listener })
}

/// What serves, and on what.
pub(super) struct Serving {
    pub app: App,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    pub cores: Vec<Core>,
}

/// Serves until the server drains, and then until running calls have ended. To drop this cuts every connection.
pub(super) async fn serve(bound: Bound, serving: Serving, stages: Stages) {
    let Serving { app, settings, metrics, cores } = serving;
    let bounds = grpc::Settings {
        message_bytes_max: settings.request_bytes_max,
        stream_in_flight_max: settings.stream_in_flight_max,
    };
    let draining = stages.reached(Stage::Draining).boxed().shared();
    let Services { routes, health } = grpc::services(app.clone(), bounds, draining).await;
    let methods = Arc::new(MethodTable::from_descriptor_sets(&[grpc::DESCRIPTORS]).expect("compiled with this binary"));
    // Each core has an observer of its own: what calls count on it must not be a neighbour's cache line.
    let calls = || {
        let hot = HotPath::new(routes.clone(), app.clone(), bounds.message_bytes_max);
        Deadlines(GrpcLayer::with_arrival(methods.clone(), metrics.clone(), turn::arrival).layer(hot))
    };
    let ready = cores.into_iter().map(|core| (core, calls())).unzip();
    let lifetime = Lifetime {
        age_max: Duration::from_secs(settings.connection_age_max_s),
        grace: Duration::from_secs(settings.connection_age_grace_s),
    };
    let dealing = deal(bound.listener, ready, lifetime, &stages);
    tokio::join!(dealing, report_health(app, health, stages.reached(Stage::Draining)));
}

/// Takes connections as they come, each for the core that has the fewest, until the server drains; and waits until all
/// have ended.
async fn deal<S, B>(listener: TcpListener, ready: (Vec<Core>, Vec<S>), lifetime: Lifetime, stages: &Stages)
where
    S: Calls<B>,
    B: Answer,
{
    let (cores, calls) = ready;
    let mut dealer = Dealer::new();
    let mut connections = JoinSet::new();
    let draining = stages.reached(Stage::Draining);
    tokio::pin!(draining);
    loop {
        let stream = tokio::select! {
            () = &mut draining => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            stream = accept(&listener) => stream,
        };
        let index = dealer.next(&cores);
        let place = cores[index].take_place();
        let served = connection::serve(stream, calls[index].clone(), lifetime, stages.reached(Stage::Draining));
        let served = async move {
            let _place = place;
            served.await;
        };
        connections.spawn_on(served, &cores[index].runtime);
    }
    // Now, and not after the last call: whoever comes is to be refused, and try another replica.
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// The next connection. After a failure there is a pause before another is looked for.
async fn accept(listener: &TcpListener) -> std::net::TcpStream {
    loop {
        // Its core is to watch it: so it leaves the reactor of this runtime.
        match listener.accept().await.and_then(|(stream, _)| TcpStream::into_std(stream)) {
            Ok(stream) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "what served a connection panicked");
    }
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
