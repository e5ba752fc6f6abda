//! `latchkey dev` as people and programs run it: a process, its standard output, signals.

#[path = "../support/mod.rs"]
mod support;

mod ready;
mod refusals;
mod stopping;
mod tour;

use std::{net::SocketAddr, path::Path, time::Duration};

use support::{
    Caller, logs,
    process::{Process, Start, eventually, latchkey, processes_naming},
    server::connect,
};

/// A first start makes a cluster; several tests share two cores.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(15);

fn dev(data_dir: &Path, port: u16) -> Start {
    let data_dir = data_dir.to_str().expect("Unicode");
    latchkey(["dev", "--json", "--port", &port.to_string(), "--data-dir", data_dir]).secret_stdout()
}

/// A `latchkey dev --json` that is ready.
struct Dev {
    process: Process,
    address: SocketAddr,
    database_url: String,
    operator: Caller,
}

impl Dev {
    async fn start(data_dir: &Path) -> Self {
        let mut process = dev(data_dir, 0).spawn();
        let line: serde_json::Value = serde_json::from_str(&process.line(START_LIMIT)).expect("one line of JSON");
        let keys: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["account_id", "address", "database_url", "system_token"]);
        assert_eq!(line["account_id"], "demo");
        let text = |key: &str| line[key].as_str().expect("a text").to_owned();
        let address: SocketAddr = text("address").parse().expect("an address");
        let pepper = std::fs::read_to_string(data_dir.join("pepper")).expect("the folder's pepper");
        logs::keep_secret(&format!("dev-{}", process.id()), pepper.trim());
        let operator = Caller { channel: connect(address).await, token: text("system_token"), on_behalf_of: None };
        Self { process, address, database_url: text("database_url"), operator }
    }

    /// Asserts a clean end, and returns what else was printed on standard output.
    fn assert_stops(self, data_dir: &Path) -> String {
        let stdout = self.process.wait(STOP_LIMIT).success();
        assert_nothing_left(data_dir, self.address);
        stdout
    }
}

/// Asserts that no process uses the folder and nothing listens on the port.
fn assert_nothing_left(data_dir: &Path, address: SocketAddr) {
    let left = processes_naming(data_dir);
    assert!(left.is_empty(), "left running: {left:#?}");
    std::net::TcpStream::connect(address).expect_err("the port is closed");
}

fn eventually_nothing_left(data_dir: &Path) {
    eventually("nothing is left running", STOP_LIMIT, || processes_naming(data_dir).is_empty());
}
