//! What a verification over gRPC costs the server: see the README beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

mod report;
mod stats;
#[path = "../support/mod.rs"]
mod support;

#[path = "rpc/cpu.rs"]
mod cpu;
#[path = "rpc/h2load.rs"]
mod h2load;
#[path = "rpc/keys.rs"]
mod keys;
#[path = "rpc/lines.rs"]
mod lines;
#[path = "rpc/many.rs"]
mod many;
#[path = "rpc/open_loop.rs"]
mod open_loop;
#[expect(dead_code, reason = "the tests look closer at what it received")]
#[path = "../support/otlp_collector.rs"]
mod otlp_collector;
#[path = "rpc/redis.rs"]
mod redis;
#[path = "rpc/stock.rs"]
mod stock;

use std::time::Duration;

use cpu::Cpu;
use h2load::{H2load, Target};
use keys::Keys;
use lines::{Line, Load};
use many::Checks;
use otlp_collector::OtlpCollector;
use redis::Redis;
use stock::Stock;
use support::{
    Caller,
    ground::{Ground, START_LIMIT},
    process::{Process, Start},
    server::connect,
};

const ROUNDS: usize = 9;
/// More, for what telemetry costs is little beside what another program's moment does.
const UNARY_ROUNDS: usize = 15;
const REQUESTS: usize = 25_000;
const CONNECTIONS: usize = 4;
/// What is no budget is measured more shortly.
const SIDE_ROUNDS: usize = 3;
const SIDE_REQUESTS: usize = 12_000;
const TOKENS: usize = 128_000;
const GETS: usize = 200_000;
const LATENCY_ROUNDS: usize = 3;
const LATENCY_SPAN: Duration = Duration::from_millis(1_500);
const LATENCY_RATE: f64 = 2_000.0;
const LATENCY_LOAD: f64 = 0.3;
const VERIFY_TOKEN: &str = "/latchkey.v1.TokenService/VerifyToken";
/// One root in a hundred is traced. Exports come sooner than by default, so that each round has some to pay for.
const TELEMETRY: [(&str, &str); 4] = [
    ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
    ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
    ("OTEL_BSP_SCHEDULE_DELAY", "500"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
];

/// A `latchkey serve`, and a caller who may verify there.
struct Served {
    process: Process,
    caller: Caller,
    target: Target,
}

struct Bench {
    keys: Keys,
    plain: Served,
    traced: Served,
    stock: Stock,
    collector: OtlpCollector,
    redis: Option<Redis>,
    /// For batches and streams: callers at the plain server over connections of their own.
    callers: Vec<Caller>,
    checks: Checks,
    /// The unary question; without it nothing sends those.
    h2load: Option<H2load>,
}

fn main() {
    if stock::asked() {
        return stock::serve();
    }
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let ground = Ground::new("bench-rpc", vec![]).await;
    machine(&ground);
    let bench = Bench::start(&ground).await;
    bench.unary().await;
    bench.many().await;
    drop(bench);
    ground.postgres.stop().await.unwrap();
}

/// What the figures depend on.
fn machine(ground: &Ground) {
    let facts = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = facts.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().unwrap();
    let tool = |version: Option<String>| version.unwrap_or_else(|| "missing".to_owned());
    println!("{cores} cores, {}", model.trim_start_matches([' ', '\t', ':']));
    println!("PostgreSQL {}, h2load: {}", ground.postgres.major(), tool(h2load::version()));
    println!("Redis: {}", tool(redis::version()));
}

// === impl Served ===

impl Served {
    async fn start(start: Start, token: &str) -> Self {
        let mut process = start.env("LATCHKEY_LOG_FILTER", "info").spawn();
        let address = process.address(START_LIMIT);
        let caller = Caller { channel: connect(address).await, token: token.to_owned(), on_behalf_of: None };
        let target = Target { address, path: VERIFY_TOKEN, process: process.id(), answer_bytes: 0 };
        Self { process, caller, target }
    }

    /// From here on it verifies from memory, for a caller that may do just that.
    async fn settle(&mut self, keys: &Keys) {
        self.caller.token.clone_from(&keys.verifier);
        self.target.answer_bytes = keys.settle(&self.caller).await;
    }
}

// === impl Bench ===

impl Bench {
    async fn start(ground: &Ground) -> Self {
        let token = ground.bootstrap();
        let collector = OtlpCollector::start().await;
        let serve = || ground.latchkey(&["serve", "--listen-address", "127.0.0.1:0"]);
        let with_telemetry = serve().env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
        let with_telemetry = TELEMETRY.iter().fold(with_telemetry, |start, (name, value)| start.env(name, *value));
        let mut plain = Served::start(serve(), &token).await;
        let mut traced = Served::start(with_telemetry, &token).await;
        let keys = Keys::make(&plain.caller).await;
        plain.settle(&keys).await;
        traced.settle(&keys).await;
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            callers.push(Caller { channel: connect(plain.target.address).await, ..plain.caller.clone() });
        }
        let checks = Checks::new(keys.checks.clone());
        let h2load = h2load::version().map(|_| H2load::new(&keys.question(), &keys.verifier));
        let redis = redis::version().map(|_| Redis::start());
        Self { keys, plain, traced, stock: Stock::start(), collector, redis, callers, checks, h2load }
    }

    /// Runs all lines once a round, one after the other, in one order and in the other by turns.
    async fn alternate(&self, rounds: usize, lines: &mut [Line]) {
        for line in lines.iter() {
            self.run(line.load, line.count / 2).await;
        }
        for round in 0..rounds {
            for place in 0..lines.len() {
                let place = if round % 2 == 0 { place } else { lines.len() - 1 - place };
                let line = &mut lines[place];
                let before = Cpu::of(self.process(line.load));
                let rate = self.run(line.load, line.count).await;
                line.add(before.spent(), rate);
            }
        }
    }

    fn process(&self, load: Load) -> u32 {
        match load {
            Load::Unary(target, _) => target.process,
            Load::Batches(_) | Load::Streams => self.plain.process.id(),
            Load::Get(_) => self.redis.as_ref().unwrap().id(),
        }
    }

    /// Gives the rate a second.
    async fn run(&self, load: Load, count: usize) -> f64 {
        match load {
            Load::Unary(target, connections) => self.h2load.as_ref().unwrap().run(target, connections, count),
            Load::Batches(size) => many::batches(&self.callers, &self.checks, size, count).await,
            Load::Streams => many::streams(&self.callers, &self.checks, count).await,
            Load::Get(pipeline) => self.redis.as_ref().unwrap().get(CONNECTIONS, pipeline, count),
        }
    }

    async fn unary(&self) {
        if self.h2load.is_none() {
            println!("skipped unary_cpu_to_stock_empty, telemetry_cpu, latency: h2load is missing (nghttp2-client)");
            return;
        }
        let stock =
            Target { address: self.stock.address, path: stock::PATH, process: self.stock.id(), answer_bytes: 0 };
        let (plain, traced) = (self.plain.target, self.traced.target);
        let line = |name: &str, target, connections, count| {
            Line::new(format!("{name}, over {connections}"), Load::Unary(target, connections), count)
        };
        let mut lines = [
            line("stock, empty", stock, CONNECTIONS, REQUESTS),
            line("VerifyToken", plain, CONNECTIONS, REQUESTS),
            line("with telemetry", traced, CONNECTIONS, REQUESTS),
        ];
        self.alternate(UNARY_ROUNDS, &mut lines).await;
        lines::print(&lines, 0);
        report::budget("unary_cpu_to_stock_empty", lines[1].ratio(&lines[0]), 0.85);
        report::budget("telemetry_cpu", lines[2].ratio(&lines[1]), 1.05);
        let spans = self.collector.spans().len();
        assert!(spans > 0 && !self.collector.metrics().is_empty(), "telemetry was exported");
        println!("{spans} spans were exported");
        let capacity = lines[0].rate().min(lines[1].rate());
        for connections in [1, 16] {
            let mut lines = [("stock, empty", stock), ("VerifyToken", plain)]
                .map(|(name, target)| line(name, target, connections, SIDE_REQUESTS));
            self.alternate(SIDE_ROUNDS, &mut lines).await;
            lines::print(&lines, 0);
        }
        for rate in [LATENCY_RATE, capacity * LATENCY_LOAD] {
            self.latency(stock, plain, rate).await;
        }
    }

    async fn latency(&self, stock: Target, plain: Target, rate: f64) {
        let mut lines = Vec::new();
        for (name, target) in [("stock, empty", stock), ("VerifyToken", plain)] {
            let mut channels = Vec::new();
            for _ in 0..CONNECTIONS {
                channels.push(connect(target.address).await);
            }
            let authorization = format!("Bearer {}", self.keys.verifier).parse().unwrap();
            let question = self.keys.question();
            let client = open_loop::Client { channels, path: target.path, authorization, question };
            client.latencies(rate, LATENCY_SPAN / 4).await;
            lines.push((name, client, Vec::new()));
        }
        for _ in 0..LATENCY_ROUNDS {
            for (_, client, latencies) in &mut lines {
                latencies.extend(client.latencies(rate, LATENCY_SPAN).await);
            }
        }
        for (name, _, latencies) in lines {
            open_loop::print(&format!("{name}, {rate:.0} a second"), latencies);
        }
    }

    async fn many(&self) {
        let mut lines = vec![
            Line::new("VerifyTokens of 1,000, a token", Load::Batches(1_000), TOKENS),
            Line::new("VerifyTokens of 100, a token", Load::Batches(100), TOKENS),
            Line::new(format!("StreamVerifyTokens of {}, a token", many::CHECKS), Load::Streams, TOKENS),
        ];
        if self.redis.is_some() {
            lines.push(Line::new("Redis GET, pipeline 1", Load::Get(1), GETS / 8));
            lines.push(Line::new("Redis GET, pipeline 32", Load::Get(32), GETS));
        }
        self.alternate(ROUNDS, &mut lines).await;
        let last = lines.len() - 1;
        lines::print(&lines, last);
        if self.redis.is_none() {
            println!(
                "skipped batch_cpu_to_redis_get_p32, stream_cpu_to_redis_get_p32: Redis is missing (redis-server)"
            );
            return;
        }
        report::budget("batch_cpu_to_redis_get_p32", lines[0].ratio(&lines[last]), 1.0);
        report::budget("stream_cpu_to_redis_get_p32", lines[2].ratio(&lines[last]), 1.0);
    }
}
