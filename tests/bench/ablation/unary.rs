//! Unary calls, each about another token, by a client that costs so little that the server has the processors: headers
//! are said once and then by their numbers, as h2load does, and frames are written and read by hand.

use std::{net::SocketAddr, time::Instant};

use latchkey::proto::{VerificationOutcome, VerifyTokenRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    CONNECTIONS,
    many::Checks,
    support::raw::{
        ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE, frame, message, text,
    },
};

/// Requests that each connection has unanswered.
const STREAMS: usize = 16;
const PATH: &str = "/latchkey.v1.TokenService/VerifyToken";
/// The largest, for each answer and for all.
const WINDOW: u32 = i32::MAX as u32;
/// Of answers that were read, after so many bytes the window is opened again.
const WINDOW_STEP: u32 = 1 << 20;
const FRAME_HEADER: usize = 9;
/// A message's prefix, the field `verification` and its length of two bytes; then the outcome VALID.
const OUTCOME_AT: usize = 5 + 3;
const VALID: [u8; 2] = [0x08, VerificationOutcome::Valid as u8];

/// A connection.
struct Client {
    stream: TcpStream,
    next: u32,
    /// What was read and is not yet a whole frame.
    unread: Vec<u8>,
    /// Bytes of answers since the window was last opened.
    taken: u32,
    /// All headers of a call, which the server has in its table by now.
    block: Vec<u8>,
}

/// Sends that many over new connections, checks that every one was VALID, and gives the rate a second.
pub async fn run(address: SocketAddr, token: &str, checks: &Checks, requests: usize) -> f64 {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(address, token).await);
    }
    let started = Instant::now();
    let each = requests / CONNECTIONS;
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.send(checks.clone(), each))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    requests as f64 / started.elapsed().as_secs_f64()
}

impl Client {
    async fn connect(address: SocketAddr, token: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let settings = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
        let opened = (WINDOW - 65_535).to_be_bytes();
        stream
            .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &settings), &frame(WINDOW_UPDATE, 0, 0, &opened)].concat())
            .await
            .unwrap();
        let authorization = format!("Bearer {token}");
        // Literals that go into the table, where the latest is number 62. POST and http are always there.
        let named = |number: u8, value: &str| [&[0x40 | number][..], &text(value.as_bytes())].concat();
        let said = [
            vec![0x83, 0x86],
            named(1, "latchkey"),
            named(4, PATH),
            named(31, "application/grpc"),
            [&[0x40][..], &text(b"te"), &text(b"trailers")].concat(),
            named(23, &authorization),
        ];
        let mut client = Self { stream, next: 1, unread: Vec::new(), taken: 0, block: said.concat() };
        let refused = client.send_one().await;
        assert!(!refused.is_empty(), "it is answered");
        client.block = vec![0x83, 0x86, 66 | 0x80, 65 | 0x80, 64 | 0x80, 63 | 0x80, 62 | 0x80];
        client
    }

    /// A call whose message is empty: its answer does not matter.
    async fn send_one(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.call(&VerifyTokenRequest::default(), &mut out);
        self.stream.write_all(&out).await.unwrap();
        let mut answer = Vec::new();
        while self.read(|_, payload| answer.extend_from_slice(payload)).await == 0 {}
        answer
    }

    async fn send(mut self, checks: Checks, requests: usize) {
        let (mut sent, mut ended, mut valid) = (0, 0, 0);
        let mut out = Vec::new();
        while ended < requests {
            out.clear();
            while sent < requests && sent - ended < STREAMS {
                let check = checks.next(1)[0].clone();
                self.call(
                    &VerifyTokenRequest { token: check.token, requirement: check.requirement, min_revision: None },
                    &mut out,
                );
                sent += 1;
            }
            if self.taken > WINDOW_STEP {
                out.extend(frame(WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes()));
                self.taken = 0;
            }
            self.stream.write_all(&out).await.unwrap();
            ended += self
                .read(|kind, payload| valid += usize::from(kind == DATA && payload[OUTCOME_AT..].starts_with(&VALID)))
                .await;
        }
        assert_eq!(valid, requests, "an answer is not VALID");
    }

    fn call(&mut self, request: &VerifyTokenRequest, out: &mut Vec<u8>) {
        let id = self.next;
        self.next += 2;
        out.extend(frame(HEADERS, END_HEADERS, id, &self.block));
        out.extend(frame(DATA, END_STREAM, id, &message(request)));
    }

    /// Reads what has come, at least something, and gives each frame of a call to `each`; how many calls ended.
    async fn read(&mut self, mut each: impl FnMut(u8, &[u8])) -> usize {
        assert!(self.stream.read_buf(&mut self.unread).await.unwrap() > 0, "the server closed the connection");
        let (mut at, mut ended) = (0, 0);
        let mut answers = Vec::new();
        while let Some(header) = self.unread.get(at..at + FRAME_HEADER) {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (kind, flags, stream) = (header[3], header[4], header[8]);
            let Some(payload) = self.unread.get(at + FRAME_HEADER..at + FRAME_HEADER + len) else { break };
            match kind {
                SETTINGS if flags & ACK == 0 => answers.extend(frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => answers.extend(frame(PING, ACK, 0, payload)),
                DATA | HEADERS => {
                    each(kind, payload);
                    self.taken += u32::from(kind == DATA) * len as u32;
                    ended += usize::from(flags & END_STREAM != 0);
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => panic!("frame {kind} of stream …{stream}"),
            }
            at += FRAME_HEADER + len;
        }
        self.unread.drain(..at);
        if !answers.is_empty() {
            self.stream.write_all(&answers).await.unwrap();
        }
        ended
    }
}
