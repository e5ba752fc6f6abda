use std::{pin::Pin, sync::Arc};

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tower::service_fn;

use super::*;
use crate::server::{
    connection::unread::ByteBudget,
    listen::admission::{ConnectionAdmission, ConnectionCaps},
};

const SOON: Duration = Duration::from_secs(5);
/// Longer than any test takes.
const LONG: ConnectionLimits = ConnectionLimits {
    age_max: Duration::from_secs(600),
    grace: Duration::from_secs(600),
    timeouts: ConnectionTimeouts {
        handshake: Duration::from_secs(600),
        idle_max: Duration::from_secs(600),
        unread_max: Duration::from_secs(600),
    },
    unread_bytes_max: 1 << 20,
};

/// A connection that is served, and its client.
struct Pair {
    client: SendRequest<String>,
    /// Ends with the client's side of the connection.
    open: JoinHandle<hyper::Result<()>>,
    served: JoinHandle<()>,
    /// Completes calls to `/wait`.
    go: Arc<Notify>,
    drain: Arc<Notify>,
}

/// What the tests' service does is in a call's path.
fn calls(go: Arc<Notify>) -> impl CallService<String> {
    service_fn(move |request: Request<Incoming>| {
        let go = go.clone();
        async move {
            match request.uri().path() {
                "/panic" => panic!("on purpose"),
                "/panic-later" => {
                    tokio::task::yield_now().await;
                    panic!("on purpose");
                }
                "/wait" => go.notified().await,
                _ => {}
            }
            Ok(Response::new("answered".to_owned()))
        }
    })
}

async fn socket(lifetime: ConnectionLimits) -> (TcpStream, JoinHandle<()>, Arc<Notify>, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = listener.accept().await.unwrap().0.into_std().unwrap();
    let (go, drain) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (calls, draining) = (calls(go.clone()), drain.clone());
    let admission =
        ConnectionAdmission::new(ConnectionCaps { total_max: 1, per_peer_max: 1 }, ByteBudget::new(1 << 20));
    let admitted = admission.admit([127, 0, 0, 1].into()).await.unwrap_or_else(|_| panic!("there is a permit"));
    let served = tokio::spawn(async move { serve(accepted, admitted, calls, lifetime, draining.notified()).await });
    (client, served, go, drain)
}

impl Pair {
    async fn connect(lifetime: ConnectionLimits) -> Self {
        let (stream, served, go, drain) = socket(lifetime).await;
        let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (client, connection) = connecting.await.unwrap();
        Self { client, open: tokio::spawn(connection), served, go, drain }
    }

    fn call(&self, path: &str) -> JoinHandle<hyper::Result<String>> {
        let request = Request::builder().uri(format!("http://latchkey{path}")).body(String::new()).unwrap();
        let mut client = self.client.clone();
        tokio::spawn(async move { Ok(text(client.send_request(request).await?.into_body()).await) })
    }
}

async fn text(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes.extend(frame.unwrap().into_data().unwrap_or_default());
    }
    String::from_utf8(bytes).unwrap()
}

async fn answered(call: JoinHandle<hyper::Result<String>>) {
    assert_eq!(timeout(SOON, call).await.expect("in time").unwrap().unwrap(), "answered");
}

#[tokio::test]
async fn a_panic_ends_its_call_and_neither_the_connection_nor_its_other_calls() {
    let pair = Pair::connect(LONG).await;
    let waiting = pair.call("/wait");
    for path in ["/panic", "/panic-later"] {
        assert!(timeout(SOON, pair.call(path)).await.expect("in time").unwrap().is_err(), "{path}");
        answered(pair.call("/")).await;
    }
    pair.go.notify_one();
    answered(waiting).await;
}

#[tokio::test]
async fn a_drain_ends_an_idle_connection_at_once() {
    let pair = Pair::connect(LONG).await;
    answered(pair.call("/")).await;
    pair.drain.notify_one();
    timeout(SOON, pair.served).await.expect("it ends").unwrap();
    timeout(SOON, pair.open).await.expect("its client is notified").unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_lets_running_calls_end_and_takes_no_more() {
    let pair = Pair::connect(LONG).await;
    let waiting = pair.call("/wait");
    answered(pair.call("/")).await;
    pair.drain.notify_one();
    while !pair.client.is_closed() && pair.call("/").await.unwrap().is_ok() {}
    assert!(!pair.served.is_finished());
    pair.go.notify_one();
    answered(waiting).await;
    timeout(SOON, pair.served).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_connection_of_an_age_is_asked_to_end_and_cut_when_its_grace_is_over() {
    let lifetime = ConnectionLimits { age_max: Duration::from_millis(300), grace: Duration::from_millis(400), ..LONG };
    let started = Instant::now();
    let (idle, busy, quick) = tokio::join!(Pair::connect(lifetime), Pair::connect(lifetime), Pair::connect(lifetime));
    let (endless, ends) = (busy.call("/wait"), quick.call("/wait"));
    timeout(SOON, idle.served).await.expect("it ends").unwrap();
    let asked = started.elapsed();
    assert!((300..700).contains(&asked.as_millis()), "idle, it ends at its age: {asked:?}");
    assert!(!busy.served.is_finished() && !quick.served.is_finished(), "they have their grace");
    quick.go.notify_one();
    answered(ends).await;
    timeout(SOON, quick.served).await.expect("its last call has ended").unwrap();
    timeout(SOON, busy.served).await.expect("it is cut").unwrap();
    assert!(started.elapsed() >= Duration::from_millis(700));
    assert!(timeout(SOON, endless).await.expect("in time").unwrap().is_err());
}

#[tokio::test]
async fn a_client_without_a_complete_handshake_is_cut_soon() {
    let (_silent, served, _, drain) = socket(LONG).await;
    drain.notify_one();
    timeout(SOON, served).await.expect("a drain does not wait for it").unwrap();
    let timeouts = ConnectionTimeouts { handshake: Duration::from_millis(200), ..LONG.timeouts };
    let (mut half, served, _, _) = socket(ConnectionLimits { timeouts, ..LONG }).await;
    half.write_all(b"PRI * HTTP/2").await.unwrap();
    timeout(SOON, served).await.expect("it is given up").unwrap();
    let (mut older, served, _, _) = socket(LONG).await;
    older.write_all(b"GET / HTTP/1.1\r\nhost: latchkey\r\n\r\n").await.unwrap();
    timeout(SOON, served).await.expect("it ends").unwrap();
    let mut answer = Vec::new();
    timeout(SOON, older.read_to_end(&mut answer)).await.expect("it is closed").ok();
    assert!(!answer.starts_with(b"HTTP/1"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_without_a_call_is_asked_to_end_and_one_with_a_call_is_kept() {
    let timeouts =
        ConnectionTimeouts { handshake: Duration::from_secs(1), idle_max: Duration::from_secs(1), ..LONG.timeouts };
    let lifetime = ConnectionLimits { timeouts, ..LONG };
    let (idle, busy) = tokio::join!(Pair::connect(lifetime), Pair::connect(lifetime));
    let waiting = busy.call("/wait");
    answered(idle.call("/")).await;
    timeout(SOON, idle.open).await.expect("its client is notified").unwrap().unwrap();
    timeout(SOON, idle.served).await.expect("it ends").unwrap();
    assert!(!busy.served.is_finished());
    busy.go.notify_one();
    answered(waiting).await;
    timeout(SOON, busy.served).await.expect("it is idle now").unwrap();
}

#[tokio::test]
async fn a_drain_cuts_a_client_that_has_no_call_and_does_not_answer() {
    let (mut client, served, _, drain) = socket(LONG).await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // Its own SETTINGS come when it has read the client's.
    let mut header = [0; 9];
    client.read_exact(&mut header).await.unwrap();
    drain.notify_one();
    timeout(SOON, served).await.expect("it ends").unwrap();
}
