//! What a thousand hostile connections of each kind cost: see the README beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

#[path = "scale/keys.rs"]
#[expect(dead_code, reason = "store_scale uses the rest")]
mod keys;
#[path = "hostile/kinds.rs"]
mod kinds;
#[path = "flood/load.rs"]
#[expect(dead_code, reason = "flood uses the rest")]
mod load;
mod report;
mod resident;
mod spans;
#[path = "../support/mod.rs"]
mod support;

use std::{net::SocketAddr, time::Duration};

use keys::Keys;
use kinds::{Hostile, Kind};
use latchkey::proto::ApiKey;
use load::Good;
use support::{
    Caller,
    ground::{Ground, START_LIMIT},
    process::{Process, Signal},
    server::connect,
    world::{create, key},
};
use tonic::Code;

const LOGS: &str = "warn,latchkey=info";
const GOOD: Keys = Keys { count: 5_000, accounts: 1 };
const ALONE: Duration = Duration::from_secs(3);
/// Of which the connections are opened in the first second.
const BESIDE: Duration = Duration::from_secs(8);
/// Until what the last kind left behind is gone.
const PAUSE: Duration = Duration::from_millis(500);
/// Keys of the account whose list is asked for and not read: a page of three megabytes.
const LISTED: usize = 1_000;
const MEMORY_MIB_LIMIT: f64 = 256.0;
const RATIO_LIMIT: f64 = 3.0;
const STOP_LIMIT: Duration = Duration::from_secs(30);
const MIB: f64 = 1_048_576.0;

struct Bench {
    server: Process,
    address: SocketAddr,
    good: Caller,
}

fn main() {
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let ground = Ground::new("hostile", vec![]).await;
    let operator = ground.bootstrap();
    GOOD.load(&ground.postgres.superuser_url(&ground.database.name)).await;
    let bench = Bench::start(&ground, operator).await;
    let idle = resident::bytes(bench.server.id());
    println!("{} connections of each kind, {:.0} MiB resident before", kinds::CONNECTIONS, idle as f64 / MIB);
    let mut alone = bench.alone().await;
    let mut besides = Vec::new();
    // All of them, or the one that is looked into.
    let asked = std::env::var("LATCHKEY_BENCH_KIND").ok();
    for (kind, name) in Kind::ALL.into_iter().filter(|(_, name)| asked.as_deref().is_none_or(|asked| asked == *name)) {
        besides.push((name, bench.beside(kind, name).await));
        alone.extend(bench.alone().await);
    }
    // Of all stretches alone, before, between and after: the p99 of each of them is a few stalls of the machine.
    let alone = print("alone, all", &mut alone);
    for (name, (p99, resident)) in besides {
        let grown = resident.saturating_sub(idle) as f64 / MIB;
        report::budget(&format!("hostile_memory_mib_{name}"), grown, MEMORY_MIB_LIMIT);
        report::budget(&format!("hostile_good_p99_to_alone_{name}"), p99 / alone, RATIO_LIMIT);
    }
    bench.server.signal(Signal::TERM);
    bench.server.wait(STOP_LIMIT).success();
    ground.postgres.stop().await.unwrap();
}

impl Bench {
    /// A server with default settings, with every good key in its cache.
    async fn start(ground: &Ground, token: String) -> Self {
        let start = ground.latchkey(&["serve", "--listen-address", "127.0.0.1:0"]);
        let mut server = start.env("LATCHKEY_LOG_FILTER", LOGS).spawn();
        let address = server.address(START_LIMIT);
        let good = Caller { channel: connect(address).await, token, on_behalf_of: None };
        for from in (0..GOOD.count).step_by(1_000) {
            load::verify(good.clone(), from..from + 1_000).await;
        }
        let metadata = |part: usize| (format!("part-{part}"), "x".repeat(500));
        let mut made = tokio::task::JoinSet::new();
        for number in 0..LISTED {
            let good = good.clone();
            let api_key = ApiKey {
                metadata: (0..6).map(metadata).collect(),
                ..key(&format!("listed {number}"), &["system.events"])
            };
            made.spawn(async move { create(&good, "system", &api_key).await.map(drop).unwrap() });
            if made.len() >= 8 {
                made.join_next().await;
            }
        }
        made.join_all().await;
        let bench = Self { server, address, good };
        // The first one warms up.
        bench.alone().await;
        bench
    }

    async fn alone(&self) -> Vec<Duration> {
        let mut spans = Good::new(self.good.clone(), GOOD.count).run(ALONE).await;
        print("alone", &mut spans);
        spans
    }

    /// The good client's p99 beside a kind, and the most that was resident.
    async fn beside(&self, kind: Kind, name: &str) -> (f64, u64) {
        let hostile = Hostile::start(kind, self.address, &self.good.token);
        let process = self.server.id();
        let watching = tokio::spawn(async move {
            let mut most = 0;
            for _ in 0..BESIDE.as_millis() / 50 {
                most = resident::bytes(process).max(most);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            most
        });
        let mut spans = Good::new(self.good.clone(), GOOD.count).run(BESIDE).await;
        let most = watching.await.unwrap();
        assert_eq!(hostile.opened(), kinds::CONNECTIONS, "{name}: not all were opened");
        drop(hostile);
        tokio::time::sleep(PAUSE).await;
        (print(name, &mut spans), most)
    }
}

/// Their p99 in milliseconds.
fn print(name: &str, spans: &mut [Duration]) -> f64 {
    let [p50, p99, max] = [50, 99, 100].map(|percent| spans::quantile_ms(spans, percent));
    println!("{name:<16} n {:>6}  p50 {p50:>8.3}  p99 {p99:>8.3}  max {max:>8.3} ms", spans.len());
    p99
}

/// The answer's name in the flood's table.
fn named(_: Code) -> &'static str {
    "an error"
}
