//! Unary load by h2load (nghttp2): a client that costs so little that the servers have the processors.

use std::{io::Write, net::SocketAddr, process::Command};

use prost::Message;
use tempfile::NamedTempFile;

/// Requests that each connection has unanswered.
const STREAMS: usize = 16;

/// The one request that is sent, over and over.
pub struct H2load {
    payload: NamedTempFile,
    authorization: String,
}

/// Whom it is sent to.
#[derive(Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    pub path: &'static str,
    pub process: u32,
    /// The message that each answer is.
    pub answer_bytes: usize,
}

/// What it calls itself, if it is installed.
pub fn version() -> Option<String> {
    let text = Command::new("h2load").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&text.stdout).trim().to_owned())
}

impl H2load {
    /// A message, sent by the bearer of a token. It is on h2load's command line: a benchmark's server guards nothing.
    pub fn new(message: &impl Message, token: &str) -> Self {
        let mut payload = NamedTempFile::new().unwrap();
        payload.write_all(&frame(&message.encode_to_vec())).unwrap();
        Self { payload, authorization: format!("authorization: Bearer {token}") }
    }

    /// Sends that many over some connections, checks that every one was answered as expected, and gives the rate a
    /// second.
    pub fn run(&self, target: Target, connections: usize, requests: usize) -> f64 {
        let output = Command::new("h2load")
            .args(["-t", "1", "-n", &requests.to_string(), "-c", &connections.to_string(), "-m", &STREAMS.to_string()])
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", &self.authorization])
            .arg("-d")
            .arg(self.payload.path())
            .arg(format!("http://{}{}", target.address, target.path))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = |start: &str| {
            let line = text.lines().find(|line| line.starts_with(start));
            line.unwrap_or_else(|| panic!("no `{start}` in\n{text}{}", String::from_utf8_lossy(&output.stderr)))
        };
        assert_eq!(before(line("requests:"), " succeeded"), requests.to_string(), "{text}");
        assert_eq!(before(line("status codes:"), " 2xx"), requests.to_string(), "{text}");
        // gRPC's errors are 200 to HTTP, but come without a message.
        let bytes = requests * (frame(&[]).len() + target.answer_bytes);
        assert_eq!(before(line("traffic:"), ") data"), bytes.to_string(), "{text}");
        before(line("finished in"), " req/s").parse().unwrap()
    }
}

/// The word before a mark.
fn before<'a>(line: &'a str, mark: &str) -> &'a str {
    let (start, _) = line.split_once(mark).unwrap_or_else(|| panic!("no `{mark}` in `{line}`"));
    start.rsplit([' ', '(']).next().unwrap_or_default()
}

/// A message as gRPC frames it.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat()
}
