//! A thousand connections of each kind, on a thread of their own: what they cost is not to be the good client's.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use latchkey::proto::{ListApiKeysRequest, VerifyTokenRequest};
use tokio::time::sleep;

use crate::support::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, Raw, frame, literal, message,
};

pub const CONNECTIONS: u64 = 1_000;
const LIST: &str = "/latchkey.v1.ApiKeyService/ListApiKeys";
const VERIFY: &str = "/latchkey.v1.TokenService/VerifyToken";
const BODIES: &str = "/latchkey.v1.DirectoryService/BatchUpsertUsers";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const WINDOW: u32 = 65_535;
/// What flow control lets a client send of a body that the server does not take, in frames.
const BODY_FRAMES: usize = 15;
/// Calls that are cancelled at once, and how often: four thousand a second in all.
const CANCELS: usize = 20;
const CANCEL_PAUSE: Duration = Duration::from_secs(5);
const LISTS: usize = 20;
const HEADERS_BYTES: usize = 60_000;
/// Connections are opened and begin over this time.
const RAMP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says nothing.
    Silent,
    /// Says half of what HTTP/2 begins with.
    HalfPreface,
    /// Says all of it, and nothing more.
    Idle,
    /// A call whose message comes a byte a second.
    Drip,
    /// A call without credentials whose large message never ends.
    Body,
    /// Asks for large lists and has room for no byte of them.
    Unread,
    /// Cancels calls at once.
    Cancels,
    /// A stream that is left open.
    Streams,
    /// Headers far larger than any call's.
    Headers,
}

/// Connections that are open until dropped.
pub struct Hostile {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    opened: Arc<AtomicU64>,
}

impl Kind {
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Silent, "silent"),
        (Self::HalfPreface, "half_preface"),
        (Self::Idle, "idle"),
        (Self::Drip, "drip"),
        (Self::Body, "body"),
        (Self::Unread, "unread"),
        (Self::Cancels, "cancels"),
        (Self::Streams, "streams"),
        (Self::Headers, "headers"),
    ];
}

impl Hostile {
    pub fn start(kind: Kind, address: SocketAddr, token: &str) -> Self {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, token) = (stop.clone(), opened.clone(), token.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for number in 0..CONNECTIONS {
                    let (token, counted) = (token.clone(), counted.clone());
                    tokio::spawn(async move {
                        sleep(RAMP * u32::try_from(number).unwrap() / u32::try_from(CONNECTIONS).unwrap()).await;
                        let raw = Raw::silent(address).await;
                        counted.fetch_add(1, Ordering::Relaxed);
                        // A connection that is cut is not opened again: the server is to hold as many as there can be.
                        hold(kind, raw, &token).await;
                    });
                }
                while !stopped.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self { stop, thread: Some(thread), opened }
    }

    /// How many were opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Does what its kind does, until the server has enough of it; then holds what is left.
async fn hold(kind: Kind, mut raw: Raw, token: &str) {
    let window = if kind == Kind::Unread { 0 } else { WINDOW };
    let opening = match kind {
        Kind::Silent => &[],
        Kind::HalfPreface => &PREFACE[..12],
        _ => PREFACE,
    };
    let settings = frame(4, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
    let all = if opening.len() == PREFACE.len() { [opening, &settings].concat() } else { opening.to_vec() };
    if say(&mut raw, &all).await {
        match kind {
            Kind::Silent | Kind::HalfPreface | Kind::Idle => {}
            Kind::Drip => drip(&mut raw, token).await,
            Kind::Body => body(&mut raw).await,
            Kind::Unread => {
                let question =
                    ListApiKeysRequest { account_id: "system".into(), page_size: 1_000, ..Default::default() };
                let lists: Vec<u8> = (0..LISTS).flat_map(|_| raw.call(LIST, token, &message(&question)).1).collect();
                say(&mut raw, &lists).await;
            }
            Kind::Cancels => cancels(&mut raw, token).await,
            Kind::Streams => {
                let watches: Vec<u8> = (0..4).flat_map(|_| raw.call(WATCH, "nobody's", &[0; 5]).1).collect();
                say(&mut raw, &watches).await;
            }
            Kind::Headers => headers(&mut raw).await,
        }
    }
    std::future::pending().await
}

/// Whether the server still takes what is said.
async fn say(raw: &mut Raw, bytes: &[u8]) -> bool {
    let write = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, bytes);
    tokio::time::timeout(Duration::from_secs(5), write).await.is_ok_and(|written| written.is_ok())
}

/// Reads what there is, and forgets it.
fn discard(raw: &Raw) {
    let mut bin = [0; 16_384];
    while raw.stream.try_read(&mut bin).is_ok_and(|read| read > 0) {}
}

async fn drip(raw: &mut Raw, token: &str) {
    let block = raw.headers(VERIFY, token, b"latchkey");
    let id = raw.id();
    let question = message(&VerifyTokenRequest { token: token.to_owned(), ..Default::default() });
    let mut alive = say(raw, &frame(HEADERS, END_HEADERS, id, &block)).await;
    for byte in &question[..question.len() - 1] {
        if !alive {
            break;
        }
        alive = say(raw, &frame(DATA, 0, id, &[*byte])).await;
        sleep(Duration::from_secs(1)).await;
    }
}

async fn body(raw: &mut Raw) {
    let id = raw.id();
    let block = [
        &[0x83, 0x86][..],
        &literal(":path", BODIES.as_bytes()),
        &literal(":authority", b"latchkey"),
        &literal("content-type", b"application/grpc"),
    ];
    let prefix = [&[0][..], &(4u32 << 20).to_be_bytes()].concat();
    let piece = frame(DATA, 0, id, &[0; 16_384]);
    let begin = [frame(HEADERS, END_HEADERS, id, &block.concat()), frame(DATA, 0, id, &prefix)].concat();
    if say(raw, &begin).await {
        for _ in 0..BODY_FRAMES {
            if !say(raw, &piece).await {
                break;
            }
        }
    }
}

async fn cancels(raw: &mut Raw, token: &str) {
    loop {
        let mut burst = vec![];
        for _ in 0..CANCELS {
            let (id, call) = raw.call(LIST, token, &message(&ListApiKeysRequest::default()));
            burst.extend(call);
            burst.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
        }
        if !say(raw, &burst).await {
            break;
        }
        sleep(CANCEL_PAUSE).await;
        discard(raw);
    }
}

async fn headers(raw: &mut Raw) {
    loop {
        let mut block = raw.headers(VERIFY, "nobody's", b"latchkey");
        block.extend(literal("x-large", &vec![b'a'; HEADERS_BYTES]));
        let id = raw.id();
        let mut pieces = block.chunks(16_384);
        let mut frames = frame(HEADERS, END_STREAM, id, pieces.next().unwrap());
        let count = pieces.len();
        for (index, piece) in pieces.enumerate() {
            let last = if index + 1 == count { END_HEADERS } else { 0 };
            frames.extend(frame(CONTINUATION, last, id, piece));
        }
        if !say(raw, &frames).await {
            break;
        }
        sleep(Duration::from_secs(2)).await;
        discard(raw);
    }
}
