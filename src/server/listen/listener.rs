//! The socket: connections dealt to cores, health that follows the lease, a drain that ends.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tower::Layer;

use super::{
    admission::{Admission, Admitted, Caps, Full},
    descriptors,
};
use crate::{
    app::App,
    grpc::{self, Services},
    server::{
        connection::{
            activity::Patience,
            http2::{self, Answer, Calls, Lifetime},
            turn,
            unread::Budget,
        },
        spell::{self, Spell},
        stage::{Stage, Stages},
        threads::cores::{Core, Dealer},
    },
    settings::Settings,
    telemetry::{GrpcLayer, MethodTable, Metrics},
};

/// How often health looks at the lease.
const HEALTH_PERIOD: Duration = Duration::from_millis(200);
/// How long no connection is taken after one could not be: for want of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that is listened on.
pub(crate) struct Bound {
    pub address: SocketAddr,
    listener: TcpListener,
}

pub(crate) async fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    Ok(Bound { address: listener.local_addr()?, listener })
}

/// What serves, and on what.
pub(crate) struct Serving {
    pub app: App,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    pub cores: Vec<Core>,
    /// Where bulk calls run.
    pub bulk: tokio::runtime::Handle,
}

/// Serves until the server drains, and then until running calls have ended. To drop this cuts every connection.
pub(crate) async fn serve(bound: Bound, serving: Serving, stages: Stages) {
    let Serving { app, settings, metrics, cores, bulk } = serving;
    let bounds = grpc::ServiceLimits {
        message_bytes_max: settings.request_bytes_max,
        stream_in_flight_max: settings.stream_in_flight_max,
    };
    let draining = stages.reached(Stage::Draining).boxed().shared();
    let Services { routes, health } = grpc::services(app.clone(), bounds, draining).await;
    let limits = grpc::GateLimits {
        message_bytes_max: settings.request_bytes_max,
        message_timeout: Duration::from_millis(settings.request_message_timeout_ms),
        memory_bytes_max: settings.requests_memory_bytes_max,
        open_calls_max: settings.open_calls_max,
    };
    let shared = grpc::GateShared::new(limits, bulk);
    let methods = Arc::new(MethodTable::from_descriptor_sets(&[grpc::DESCRIPTORS]).expect("compiled with this binary"));
    // Each core has an observer of its own: what calls count on it must not be a neighbour's cache line.
    let calls = || {
        let door = grpc::Gate::new(routes.clone(), app.clone(), shared.clone());
        GrpcLayer::with_arrival(methods.clone(), metrics.clone(), turn::arrival).layer(door)
    };
    let ready = cores.into_iter().map(|core| (core, calls())).unzip();
    let lifetime = Lifetime {
        age_max: Duration::from_secs(settings.connection_age_max_s),
        grace: Duration::from_secs(settings.connection_age_grace_s),
        patience: Patience {
            handshake: Duration::from_millis(settings.connection_handshake_ms),
            idle_max: Duration::from_secs(settings.connection_idle_max_s),
            unread_max: Duration::from_secs(settings.unread_answer_max_s),
        },
        unread_bytes_max: settings.unread_bytes_per_connection_max,
    };
    let door = Door::new(bound.listener, descriptors::divide(&settings), Budget::new(settings.unread_bytes_max));
    let dealing = deal(door, ready, lifetime, &stages);
    tokio::join!(dealing, report_health(app, health, stages.reached(Stage::Draining)));
}

/// Takes connections as they come, each for the core that has the fewest, until the server drains; and waits until all
/// have ended.
async fn deal<S, B>(mut door: Door, ready: (Vec<Core>, Vec<S>), lifetime: Lifetime, stages: &Stages)
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
        let (stream, admitted) = tokio::select! {
            () = &mut draining => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = door.next() => accepted,
        };
        let index = dealer.next(&cores);
        let place = cores[index].take_place();
        let served = http2::serve(stream, admitted, calls[index].clone(), lifetime, stages.reached(Stage::Draining));
        let served = async move {
            let _place = place;
            served.await;
        };
        connections.spawn_on(served, &cores[index].runtime);
    }
    // Now, and not after the last call: whoever comes is to be refused, and try another replica.
    drop(door);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// Where connections come in, and some are turned away.
struct Door {
    listener: TcpListener,
    caps: Caps,
    admission: Admission,
    /// What was accepted, while its place is being made.
    waiting: Option<(TcpStream, SocketAddr)>,
    failing: Spell,
    full: Spell,
    full_for_a_peer: Spell,
}

impl Door {
    fn new(listener: TcpListener, caps: Caps, unread: Arc<Budget>) -> Self {
        let (failing, full, full_for_a_peer) = Default::default();
        Self { listener, caps, admission: Admission::new(caps, unread), waiting: None, failing, full, full_for_a_peer }
    }

    /// The next connection that there is a place for. Those without are taken, too, and closed: left where they are,
    /// they would keep the others waiting. To drop the future loses nothing.
    async fn next(&mut self) -> (std::net::TcpStream, Admitted) {
        let mut ticks = tokio::time::interval(spell::QUIET);
        loop {
            if self.waiting.is_none() {
                tokio::select! {
                    accepted = self.listener.accept() => match accepted {
                        Ok(accepted) => self.waiting = Some(accepted),
                        Err(error) => {
                            self.fails(&error);
                            // The connections that there are need the processor more.
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    _ = ticks.tick() => self.tell_what_ended(),
                }
            }
            let Some((_, address)) = &self.waiting else { continue };
            let admitted = self.admission.admit(address.ip()).await;
            let Some((stream, _)) = self.waiting.take() else { continue };
            match admitted {
                // Its core is to watch it: so it leaves the reactor of this runtime.
                Ok(admitted) => match stream.into_std() {
                    Ok(stream) => return (stream, admitted),
                    Err(error) => self.fails(&error),
                },
                Err(full) => self.refuses(full),
            }
        }
    }

    fn fails(&mut self, error: &io::Error) {
        if self.failing.happens(Instant::now()) {
            tracing::warn!(%error, "connections cannot be accepted");
        }
    }

    fn refuses(&mut self, full: Full) {
        let Caps { total_max, per_peer_max } = self.caps;
        match full {
            Full::Total if self.full.happens(Instant::now()) => {
                tracing::warn!(total_max, "connections are refused: there are as many as may be");
            }
            Full::Peer if self.full_for_a_peer.happens(Instant::now()) => {
                tracing::warn!(per_peer_max, "connections are refused: a peer has as many as it may have");
            }
            Full::Total | Full::Peer => {}
        }
    }

    fn tell_what_ended(&mut self) {
        if let Some(failures) = self.failing.ended(Instant::now()) {
            tracing::info!(failures, "connections can be accepted again");
        }
        if let Some(refused) = self.full.ended(Instant::now()) {
            tracing::info!(refused, "no connections are refused any more for their total number");
        }
        if let Some(refused) = self.full_for_a_peer.ended(Instant::now()) {
            tracing::info!(refused, "no connections are refused any more for the number of a peer's");
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
