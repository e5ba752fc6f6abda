//! Serves one connection: HTTP/2 within bounds.
//!
//! Uses hyper without tonic's transport, which boxes each call's future and both its bodies, adds extensions that no
//! part of this server reads, and checks limits that are not set.

use std::{cell::RefCell, convert::Infallible, error::Error, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
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
    wire::{inspected_stream::InspectedStream, meter::RESETS_BURST_MAX},
};

/// The most open streams of a connection; each costs memory.
const CONCURRENT_STREAMS_MAX: u32 = 1_000;
/// The largest size of all headers of a request. Far more than the 16 KiB that a call may have, so that a call with
/// more is answered with a status that says so instead of HTTP 431.
const HEADER_LIST_BYTES_MAX: u32 = 256 * 1024;
/// The most unread bytes of one call. Fixed rather than adaptive, which would send a PING for every few messages:
/// requests are small, and a large batch needs a few round trips at most.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The most unread bytes of all calls of a connection, and so the most memory that a client can fill. Several times a
/// call's, so that a verification stream that is not read on, because too much of it is unanswered, leaves the other
/// calls their share; and far more than many small requests, so that window updates are rare.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The smallest size that HTTP/2 allows: a larger frame would keep the calls behind it waiting.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// The most bytes of a response that hyper buffers for a client that does not read. The rest of a stream waits where it
/// is made.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// How many streams h2 may reset for a client's errors before it closes the connection (RUSTSEC-2024-0003).
const RESETS_MAX: usize = 1_024;
/// A peer that vanished is noticed within the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that was asked to close may have no call before it is cut, in case its client does not answer:
/// longer than a call that was already sent takes to arrive.
const QUIET: Duration = Duration::from_secs(5);
/// The same during a drain, which is not to wait for clients that have gone.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// The age at which it is asked to close: it accepts no more calls.
    pub age_max: Duration,
    /// How long its running calls may take after that.
    pub grace: Duration,
    /// Its timeouts.
    pub timeouts: ConnectionTimeouts,
    /// The most bytes of responses that its client may leave unread.
    pub unread_bytes_max: usize,
}

/// The service that answers the calls of a connection. It must always be ready: a call that it cannot take is answered
/// with a status. It works in its futures, where a panic ends one call; a panic in `call` itself ends the connection.
pub(crate) trait CallService<B>:
    Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// The body of a response.
pub(crate) trait ResponseBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static
{
}

/// Adapts a tower service to hyper, which calls it by a shared reference but from one connection's task only: so it
/// need not be cloned for each call.
struct HyperService<S>(RefCell<S>);

/// Why a connection is closed.
enum CloseReason {
    /// The server drains.
    Draining,
    /// It has reached its maximum age.
    Aged,
    TimedOut(TimeoutReason),
    /// Its permit goes to another connection.
    Evicted,
}

/// Serves a connection on the current thread until its client leaves, its age or a timeout is reached, it is evicted,
/// or `draining` completes and its calls have ended. The drain's own deadline is the caller's: dropping the future cuts
/// the connection.
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
    // Registered here, with the reactor of this thread, and not where it was accepted.
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
        ended = &mut connection => return log_end(ended),
        () = draining => CloseReason::Draining,
        () = tokio::time::sleep(lifetime.age_max) => CloseReason::Aged,
        reason = activity.timed_out(lifetime.timeouts) => CloseReason::TimedOut(reason),
        Ok(()) = &mut evicted => CloseReason::Evicted,
    };
    let (grace, quiet) = match ending {
        CloseReason::Evicted => {
            return tracing::debug!("a connection without a call was evicted for another");
        }
        CloseReason::TimedOut(TimeoutReason::Unread) => {
            return tracing::debug!("a connection was cut: its client does not read a response");
        }
        CloseReason::TimedOut(TimeoutReason::Silent) => {
            return tracing::debug!(
                "a connection was cut: its client did not complete the handshake or a header block"
            );
        }
        // A client that has not completed the handshake waits for no answer.
        CloseReason::Draining if !activity.has_greeted() => return,
        CloseReason::Draining => (None, DRAIN_QUIET),
        CloseReason::Aged | CloseReason::TimedOut(TimeoutReason::Idle) => (Some(lifetime.grace), QUIET),
    };
    connection.as_mut().connection().graceful_shutdown();
    tokio::select! {
        biased;
        ended = connection => log_end(ended),
        () = activity.quiet(quiet) => tracing::debug!("a connection was cut: its client did not close it in time"),
        () = sleep_if(grace) => tracing::debug!("a connection was cut: its calls did not end within the grace period"),
    }
}

/// Completes when the time is over, if there is one.
async fn sleep_if(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Logs a connection that failed, by its client's doing: it was cut, or was not HTTP/2.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, cause = error.source(), "a connection failed");
    }
}

fn builder(arrived: &InlineExecutor) -> http2::Builder<InlineExecutor> {
    let mut builder = http2::Builder::new(arrived.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(UNSENT_BYTES_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        // As many as the meter allows: the meter is what cuts a flood.
        .max_pending_accept_reset_streams(RESETS_BURST_MAX as usize)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        // gRPC does not use it, and it would be made and compressed for each response.
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
