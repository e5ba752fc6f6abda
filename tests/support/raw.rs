//! HTTP/2 spoken by hand: what no well-behaved client says, and answers as the frames that they come in.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const SOON: Duration = Duration::from_secs(20);

/// A connection.
pub struct Raw {
    pub stream: TcpStream,
    next: u32,
    /// Whether a client's own `:authority` is in the table of what was said already.
    said_authority: bool,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a message: all bytes of DATA.
    Message(Vec<u8>),
    /// With a status alone.
    Status,
    /// With RST_STREAM, and its code.
    Reset(u32),
    /// With the connection.
    Closed,
}

/// A frame as it is on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal that leaves the table as it is.
pub fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0], &text(name.as_bytes())[..], &text(value)].concat()
}

/// A string that is not in Huffman's code.
pub fn text(bytes: &[u8]) -> Vec<u8> {
    let mut text = vec![];
    match u8::try_from(bytes.len()) {
        Ok(length @ ..127) => text.push(length),
        _ => {
            let mut rest = bytes.len() - 127;
            text.push(127);
            while rest >= 128 {
                text.push(u8::try_from(rest % 128).expect("short") | 128);
                rest /= 128;
            }
            text.push(u8::try_from(rest).expect("short"));
        }
    }
    text.extend_from_slice(bytes);
    text
}

/// A message as gRPC frames it.
pub fn message(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).expect("short").to_be_bytes(), &bytes].concat()
}

impl Raw {
    /// A connection that has said nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self { stream, next: 1, said_authority: false }
    }

    /// A connection that has said its preface and SETTINGS, with so large a window for each answer.
    pub async fn connect(address: SocketAddr, window: u32) -> Self {
        let mut raw = Self::silent(address).await;
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()).await;
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(SOON, self.stream.write_all(bytes)).await.expect("the server reads").expect("it is open");
    }

    /// The block of a request's headers. An `:authority` is said in full the first time, and then referred to.
    pub fn headers(&mut self, path: &str, token: &str, authority: &[u8]) -> Vec<u8> {
        let said = std::mem::replace(&mut self.said_authority, true);
        let authority = if said { vec![0xbe] } else { [&[0x41][..], &text(authority)].concat() };
        let bearer = super::server::bearer(token);
        [
            &[0x83, 0x86][..],
            &authority,
            &literal(":path", path.as_bytes()),
            &literal("content-type", b"application/grpc"),
            &literal("te", b"trailers"),
            &literal("authorization", bearer.as_bytes()),
        ]
        .concat()
    }

    /// The id of the next call.
    pub fn id(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// The frames of a whole call, and its id.
    pub fn call(&mut self, path: &str, token: &str, message: &[u8]) -> (u32, Vec<u8>) {
        let block = self.headers(path, token, b"latchkey");
        let id = self.id();
        (id, [frame(HEADERS, END_HEADERS, id, &block), frame(DATA, END_STREAM, id, message)].concat())
    }

    /// The next frame: kind, flags, stream, payload. `None` at the end of the connection.
    pub async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        // What must be answered is.
        if header[4] & ACK == 0 && (header[3] == PING || header[3] == SETTINGS) {
            let acknowledged = if header[3] == PING { &payload[..] } else { &[] };
            let answer = frame(header[3], ACK, 0, acknowledged);
            self.stream.write_all(&answer).await.ok()?;
        }
        Some((header[3], header[4], stream, payload))
    }

    /// Reads until a call has ended.
    pub async fn end(&mut self, id: u32) -> End {
        let mut data = vec![];
        loop {
            let Some((kind, flags, stream, payload)) = timeout(SOON, self.read()).await.expect("in time") else {
                return End::Closed;
            };
            if stream != id {
                continue;
            }
            match kind {
                RST_STREAM => return End::Reset(u32::from_be_bytes(payload.try_into().expect("a code"))),
                DATA => data.extend(payload),
                _ => {}
            }
            if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
                return if data.is_empty() { End::Status } else { End::Message(data) };
            }
        }
    }

    /// Reads until the server closes the connection, and answers nothing.
    pub async fn closed(&mut self) {
        // However it is closed.
        let _ = timeout(SOON, self.stream.read_to_end(&mut vec![])).await.expect("the server closes it");
    }
}
