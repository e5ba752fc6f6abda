//! Redis beside ours: GET of one in a thousand small values, by redis-benchmark.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const KEYS: usize = 1_000;
const START_LIMIT: Duration = Duration::from_secs(10);

/// A Redis of our own, without persistence; dropping it stops it.
pub struct Redis {
    child: Child,
    address: SocketAddr,
    /// Its working folder.
    _folder: tempfile::TempDir,
}

/// What it calls itself, if it and its benchmark are installed.
pub fn version() -> Option<String> {
    Command::new("redis-benchmark").arg("--version").output().ok()?;
    let text = Command::new("redis-server").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}

impl Redis {
    /// Starts it and fills it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &free.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { child, address: free, _folder: folder };
        let started = Instant::now();
        while TcpStream::connect(free).is_err() {
            assert!(started.elapsed() < START_LIMIT, "redis-server does not answer on {free}");
            std::thread::sleep(Duration::from_millis(10));
        }
        redis.run("set", 1, 32, 50 * KEYS);
        assert_eq!(redis.ask("DBSIZE"), format!(":{KEYS}"), "every GET is to find its key");
        redis
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends that many GETs, as many at a time as the pipeline is long, and gives the rate a second.
    pub fn get(&self, connections: usize, pipeline: usize, requests: usize) -> f64 {
        self.run("get", connections, pipeline, requests)
    }

    fn run(&self, test: &str, connections: usize, pipeline: usize, requests: usize) -> f64 {
        let output = Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "--csv", "-t", test])
            .args(["-n", &requests.to_string(), "-r", &KEYS.to_string()])
            .args(["-c", &connections.to_string(), "-P", &pipeline.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // `"GET","588235.31",…`
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = text.lines().last().and_then(|line| line.split(',').nth(1));
        rate.and_then(|rate| rate.trim_matches('"').parse().ok()).unwrap_or_else(|| panic!("no rate in {text}"))
    }

    /// One short command, and its answer of one line.
    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{command}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
