//! One connection: HTTP/2 with bounds, from its first byte to its last.
//!
//! hyper serves it without tonic's transport around it: that boxes each call's future and both its bodies, adds
//! extensions that nobody here reads, and looks at limits that are not set.

use std::{cell::RefCell, convert::Infallible, error::Error, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tower::Service;

use super::{
    activity::{Activity, ConnectionTimeouts, TimeoutReason},
    inline_executor::{DrivenConnection, InlineExecutor},
    tracked::Tracked,
    unread::UnreadBudgets,
};
use crate::server::{
    listen::admission::AdmittedConnection,
    poll_clock::PollTimer,
    wire::{inspected_stream::InspectedStream, meter::RESETS_BURST_MAX},
};

/// Streams that one connection may have open; each costs memory.
const CONCURRENT_STREAMS_MAX: u32 = 1_000;
/// All headers of a request. Far more than the 16 KiB that a call may have, so that a call with more is answered with a
/// status that says so, rather than HTTP 431.
const HEADER_LIST_BYTES_MAX: u32 = 256 * 1024;
/// Bytes of a call that may be here unread. Fixed rather than adaptive, which would send a PING for every few
/// messages: what is asked here is small, and a large batch needs a few round trips at most.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all calls of a connection: the most memory that a client can fill. Several times a call's, so that a
/// verification stream that is read no further, since too much of it is unanswered, leaves the other calls their share;
/// and far more than many small requests, so that window updates are rare.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The smallest there is: a larger frame would keep the calls behind it waiting.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of one answer that wait for a client that does not read. What else a stream has to say waits where it is made.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Calls that we may have had to reset, by a client's fault, before the connection is given up (RUSTSEC-2024-0003).
const RESETS_MAX: usize = 1_024;
/// A peer that went away without a word is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that was asked to end is without a call before it is cut, in case its client does not answer:
/// longer than a call that is on its way takes to arrive.
const QUIET: Duration = Duration::from_secs(5);
/// The same in a drain, which is not to wait for clients that are gone.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// How long a connection lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// The age at which it is asked to end: it takes no more calls.
    pub age_max: Duration,
    /// The time that its calls are given then.
    pub grace: Duration,
    /// How long it may take for what.
    pub timeouts: ConnectionTimeouts,
    /// Bytes of its answers that its client may leave unread.
    pub unread_bytes_max: usize,
}

/// What serves the calls of a connection. It must always be ready: what cannot take a call answers it with a status. It
/// works in its futures, where a panic ends one call; to call it is the connection's own work, and ends that.
pub(crate) trait CallService<B>:
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// What an answer's body must be.
pub(crate) trait ResponseBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static
{
}

/// A tower service as hyper takes it. hyper calls it by a shared reference, but from one connection's task only: so it
/// need not be cloned for each call.
struct HyperService<S>(RefCell<S>);

/// Why a connection is to end.
enum CloseReason {
    /// The server drains.
    Draining,
    /// It has reached its age.
    Aged,
    TimedOut(TimeoutReason),
    /// Its place goes to another.
    Evicted,
}

/// Serves a connection on the core that this runs on, until its client leaves, its time is over, it says or does nothing
/// for too long, its place goes to another, or `draining` completes and its calls have ended. Whoever drains sets the
/// bound for calls: to drop this cuts the connection.
pub(crate) async fn serve<S, B>(
    stream: std::net::TcpStream,
    admitted: AdmittedConnection,
    calls: S,
    lifetime: ConnectionLimits,
    draining: impl Future<Output = ()>,
) where
    S: CallService<B>,
    B: ResponseBody,
{
    // Here and not where it was accepted: the reactor of this core is to watch it.
    let stream = match TcpStream::from_std(stream).and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection could not be taken over"),
    };
    let AdmittedConnection { permit, mut evicted } = admitted;
    let [of_peer, of_process] = permit.unread.clone();
    let unread = UnreadBudgets::new(lifetime.unread_bytes_max, of_peer, of_process);
    let activity = Arc::new(Activity::new(permit));
    let arrived = InlineExecutor::default();
    let calls = HyperService(RefCell::new(Tracked::new(calls, activity.clone(), unread)));
    let wire = InspectedStream::new(stream, activity.clone());
    let connection = builder(&arrived).serve_connection(TokioIo::new(wire), calls);
    let mut connection = pin!(DrivenConnection::new(connection, arrived));
    let ending = tokio::select! {
        biased;
        ended = &mut connection => return told(ended),
        () = draining => CloseReason::Draining,
        () = tokio::time::sleep(lifetime.age_max) => CloseReason::Aged,
        reason = activity.timed_out(lifetime.timeouts) => CloseReason::TimedOut(reason),
        Ok(()) = &mut evicted => CloseReason::Evicted,
    };
    let (grace, quiet) = match ending {
        CloseReason::Evicted => {
            return tracing::debug!("a connection without a call was cut, to make room for another");
        }
        CloseReason::TimedOut(TimeoutReason::Unread) => {
            return tracing::debug!("a connection was cut: its client does not read");
        }
        CloseReason::TimedOut(TimeoutReason::Silent) => {
            return tracing::debug!("a connection was cut: its client said too little");
        }
        // Nobody waits for an answer on one that has said nothing yet.
        CloseReason::Draining if !activity.has_greeted() => return,
        CloseReason::Draining => (None, DRAIN_QUIET),
        CloseReason::Aged | CloseReason::TimedOut(TimeoutReason::Idle) => (Some(lifetime.grace), QUIET),
    };
    connection.as_mut().connection().graceful_shutdown();
    tokio::select! {
        biased;
        ended = connection => told(ended),
        () = activity.quiet(quiet) => tracing::debug!("a connection was cut: its client did not take its leave"),
        () = over(grace) => tracing::debug!("a connection was cut: its calls did not end in the time given to them"),
    }
}

/// Completes when the time is over, if there is one.
async fn over(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// A connection that ends badly is its client's affair: it was cut, or spoke no HTTP/2.
fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, cause = error.source(), "a connection failed");
    }
}

fn builder(arrived: &InlineExecutor) -> http2::Builder<InlineExecutor> {
    let mut builder = http2::Builder::new(arrived.clone());
    builder
        .timer(PollTimer::default())
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(UNSENT_BYTES_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        // As many as the meter lets by: it is what cuts a flood.
        .max_pending_accept_reset_streams(RESETS_BURST_MAX as usize)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        // gRPC has no use for it, and it would be made and compressed for each answer.
        .auto_date_header(false);
    builder
}

impl<S, B> hyper::service::Service<Request<Incoming>> for HyperService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.borrow_mut().call(request)
    }
}

impl<S, B> CallService<B> for S where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<B> ResponseBody for B where B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

#[cfg(test)]
#[path = "tests/http2.rs"]
mod tests;
