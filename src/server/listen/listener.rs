//! Accepts connections and hands each to a serving thread; lets health follow the lease; drains.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tower::Layer;

use super::{
    admission::{AdmittedConnection, CapReached, ConnectionAdmission, ConnectionCaps},
    descriptors,
};
use crate::{
    app::App,
    grpc::{self, Services},
    server::{
        connection::{
            activity::ConnectionTimeouts,
            http2::{self, CallService, ConnectionLimits, ResponseBody},
            unread::ByteBudget,
        },
        incident::{self, Incident},
        lifecycle::{Lifecycle, Phase},
        threads::serving::{ConnectionBalancer, ServingThread},
    },
    settings::Settings,
    telemetry::{GrpcLayer, MethodTable, Metrics},
};

/// How often health checks the lease.
const HEALTH_PERIOD: Duration = Duration::from_millis(200);
/// How long accepting pauses after an error, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket and its address.
pub(crate) struct BoundListener {
    pub address: SocketAddr,
    listener: TcpListener,
}

pub(crate) async fn bind(address: SocketAddr) -> io::Result<BoundListener> {
    let listener = TcpListener::bind(address).await?;
    Ok(BoundListener { address: listener.local_addr()?, listener })
}

/// The parts that a server serves with.
pub(crate) struct ServerParts {
    pub app: App,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    pub threads: Vec<ServingThread>,
    /// The runtime of bulk calls.
    pub bulk: tokio::runtime::Handle,
}

/// Serves until the server drains, and then until running calls have ended. Dropping the future cuts every connection.
pub(crate) async fn serve(bound: BoundListener, serving: ServerParts, lifecycle: Lifecycle) {
    let ServerParts { app, settings, metrics, threads, bulk } = serving;
    let bounds = grpc::ServiceLimits {
        message_bytes_max: settings.request_bytes_max,
        stream_in_flight_max: settings.stream_in_flight_max,
    };
    let draining = lifecycle.reached(Phase::Draining).boxed().shared();
    let Services { routes, health } = grpc::services(app.clone(), bounds, draining).await;
    let limits = grpc::GateLimits {
        message_bytes_max: settings.request_bytes_max,
        message_timeout: Duration::from_millis(settings.request_message_timeout_ms),
        memory_bytes_max: settings.requests_memory_bytes_max,
        open_calls_max: settings.open_calls_max,
    };
    let shared = grpc::GateShared::new(limits, bulk);
    let methods = Arc::new(MethodTable::from_descriptor_sets(&[grpc::DESCRIPTORS]).expect("compiled with this binary"));
    // Each thread has an observer of its own: threads must share no cache line that every call writes to.
    let calls = || {
        let gate = grpc::Gate::new(routes.clone(), app.clone(), shared.clone());
        GrpcLayer::new(methods.clone(), metrics.clone()).layer(gate)
    };
    let ready = threads.into_iter().map(|thread| (thread, calls())).unzip();
    let lifetime = ConnectionLimits {
        age_max: Duration::from_secs(settings.connection_age_max_s),
        grace: Duration::from_secs(settings.connection_age_grace_s),
        timeouts: ConnectionTimeouts {
            handshake: Duration::from_millis(settings.connection_handshake_ms),
            idle_max: Duration::from_secs(settings.connection_idle_max_s),
            unread_max: Duration::from_secs(settings.unread_answer_max_s),
        },
        unread_bytes_max: settings.unread_bytes_per_connection_max,
    };
    let acceptor = ConnectionAcceptor::new(
        bound.listener,
        descriptors::divide(&settings),
        ByteBudget::new(settings.unread_bytes_max),
    );
    let dispatching = dispatch(acceptor, ready, lifetime, &lifecycle);
    tokio::join!(dispatching, report_health(app, health, lifecycle.reached(Phase::Draining)));
}

/// Hands each new connection to the serving thread with the fewest, until the server drains; then waits until all
/// connections have ended.
async fn dispatch<S, B>(
    mut acceptor: ConnectionAcceptor,
    ready: (Vec<ServingThread>, Vec<S>),
    lifetime: ConnectionLimits,
    lifecycle: &Lifecycle,
) where
    S: CallService<B>,
    B: ResponseBody,
{
    let (threads, calls) = ready;
    let mut balancer = ConnectionBalancer::new();
    let mut connections = JoinSet::new();
    let draining = lifecycle.reached(Phase::Draining);
    tokio::pin!(draining);
    loop {
        let (stream, admitted) = tokio::select! {
            () = &mut draining => break,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            accepted = acceptor.next() => accepted,
        };
        let index = balancer.next(&threads);
        let count = threads[index].count_connection();
        let served = http2::serve(stream, admitted, calls[index].clone(), lifetime, lifecycle.reached(Phase::Draining));
        let served = async move {
            let _count = count;
            served.await;
        };
        connections.spawn_on(served, &threads[index].runtime);
    }
    // Closed now, not after the last call: new clients are to be refused and to try another replica.
    drop(acceptor);
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
}

/// Accepts connections, and closes those that exceed a cap.
struct ConnectionAcceptor {
    listener: TcpListener,
    caps: ConnectionCaps,
    admission: ConnectionAdmission,
    /// The accepted connection that waits for its permit.
    waiting: Option<(TcpStream, SocketAddr)>,
    failing: Incident,
    full: Incident,
    full_for_a_peer: Incident,
}

impl ConnectionAcceptor {
    fn new(listener: TcpListener, caps: ConnectionCaps, unread: Arc<ByteBudget>) -> Self {
        let (failing, full, full_for_a_peer) = Default::default();
        Self {
            listener,
            caps,
            admission: ConnectionAdmission::new(caps, unread),
            waiting: None,
            failing,
            full,
            full_for_a_peer,
        }
    }

    /// Returns the next connection that has a permit. Connections without one are accepted, too, and closed: left in
    /// the backlog, they would keep the others waiting. Dropping the future loses nothing.
    async fn next(&mut self) -> (std::net::TcpStream, AdmittedConnection) {
        let mut ticks = tokio::time::interval(incident::QUIET_PERIOD);
        loop {
            if self.waiting.is_none() {
                tokio::select! {
                    accepted = self.listener.accept() => match accepted {
                        Ok(accepted) => self.waiting = Some(accepted),
                        Err(error) => {
                            self.log_failure(&error);
                            // The open connections need the processor more.
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    _ = ticks.tick() => self.log_ended_incidents(),
                }
            }
            let Some((_, address)) = &self.waiting else { continue };
            let admitted = self.admission.admit(address.ip()).await;
            let Some((stream, _)) = self.waiting.take() else { continue };
            match admitted {
                // Deregistered from this runtime's reactor: its serving thread's reactor will watch it.
                Ok(admitted) => match stream.into_std() {
                    Ok(stream) => return (stream, admitted),
                    Err(error) => self.log_failure(&error),
                },
                Err(full) => self.log_refusal(full),
            }
        }
    }

    fn log_failure(&mut self, error: &io::Error) {
        if self.failing.record(Instant::now()) {
            tracing::warn!(%error, "connections cannot be accepted");
        }
    }

    fn log_refusal(&mut self, full: CapReached) {
        let ConnectionCaps { total_max, per_peer_max } = self.caps;
        match full {
            CapReached::Total if self.full.record(Instant::now()) => {
                tracing::warn!(total_max, "connections are refused: the maximum number is reached");
            }
            CapReached::Peer if self.full_for_a_peer.record(Instant::now()) => {
                tracing::warn!(per_peer_max, "connections are refused: a peer has reached its maximum number");
            }
            CapReached::Total | CapReached::Peer => {}
        }
    }

    fn log_ended_incidents(&mut self) {
        if let Some(failures) = self.failing.ended(Instant::now()) {
            tracing::info!(failures, "connections can be accepted again");
        }
        if let Some(refused) = self.full.ended(Instant::now()) {
            tracing::info!(refused, "no more connections are refused for the maximum number");
        }
        if let Some(refused) = self.full_for_a_peer.ended(Instant::now()) {
            tracing::info!(refused, "no more connections are refused for the maximum number of a peer");
        }
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a connection panicked");
    }
}

/// Reports SERVING while this replica holds its lease, and NOT_SERVING from the beginning of the drain. Then ends the
/// streams that watch health, which would otherwise keep every drain waiting.
async fn report_health(app: App, health: tonic_health::server::HealthReporter, draining: impl Future<Output = ()>) {
    tokio::select! {
        () = follow_lease(&app, &health) => {}
        () = draining => {}
    }
    grpc::set_serving(&health, false).await;
    grpc::end_health(health).await;
}

/// Reports SERVING while this replica answers from its cache: with its lease, or, if the settings allow it, marked as
/// stale for a while after. No replica holds a lease on a history that was not accepted.
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
