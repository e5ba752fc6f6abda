//! What a flood of well-formed tokens that no server minted does to good ones: see the README beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

#[path = "scale/keys.rs"]
#[expect(dead_code, reason = "store_scale uses the rest")]
mod keys;
#[path = "flood/load.rs"]
mod load;
mod report;
mod resident;
mod spans;
mod stats;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, time::Duration};

use keys::Keys;
use load::{Flood, Good};
use support::{
    Caller,
    ground::{Ground, START_LIMIT, on},
    process::{Process, Signal},
    server::connect,
    sql,
};
use tonic::Code;

const LOGS: &str = "warn,latchkey=info";
const GOOD: Keys = Keys { count: 5_000, accounts: 1 };
const ROUNDS: u64 = 3;
const ALONE: Duration = Duration::from_secs(3);
const FLOODED: Duration = Duration::from_secs(5);
/// How long after a flood its last questions and the usage marks of the phase may take.
const PAUSE: Duration = Duration::from_millis(500);
/// A flood that is turned away before it reaches the database may slow the good ones by what it costs to read it.
const UNSHED_PERCENT_LIMIT: f64 = 1.0;
const RATIO_LIMIT: f64 = 2.0;
/// 100,000 remembered digests, what 1,024 misses hold, and what the allocator keeps.
const GROWTH_MIB_LIMIT: f64 = 64.0;
const STOP_LIMIT: Duration = Duration::from_secs(30);
const MIB: f64 = 1_048_576.0;

struct Bench {
    server: Process,
    /// The good ones' connection; a flood has its own.
    good: Caller,
    flooder: Caller,
    alone: Vec<f64>,
    flooded: Vec<f64>,
    answers: BTreeMap<&'static str, u64>,
}

fn main() {
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let ground = Ground::new("flood", vec![]).await;
    let cores = std::thread::available_parallelism().unwrap();
    println!("PostgreSQL {}, {cores} cores, {} good keys", ground.postgres.major(), GOOD.count);
    let operator = ground.bootstrap();
    GOOD.load(&ground.postgres.superuser_url(&ground.database.name)).await;
    let before = transactions(&ground).await;
    let mut bench = Bench::start(&ground, operator).await;
    let resident_before = resident::bytes(bench.server.id());
    for round in 0..ROUNDS {
        bench.alone().await;
        bench.flooded(round).await;
    }
    bench.alone().await;
    let grown = resident::bytes(bench.server.id()).saturating_sub(resident_before) as f64 / MIB;
    let Bench { server, alone, flooded, answers, .. } = bench;
    server.signal(Signal::TERM);
    server.wait(STOP_LIMIT).success();
    // PostgreSQL counts a connection's last statements when it ends. Each good key was one.
    let asked = transactions(&ground).await - before - GOOD.count as i64;
    let seconds = FLOODED.as_secs() * ROUNDS;
    println!("the floods' tokens by answer: {answers:?}");
    let total: u64 = answers.values().sum();
    let shed = answers.get("RESOURCE_EXHAUSTED").copied().unwrap_or_default();
    report::budget("flood_unshed_percent", 100.0 * (total - shed) as f64 / total as f64, UNSHED_PERCENT_LIMIT);
    println!("{asked} transactions in {seconds} s of floods, {grown:.0} MiB more resident after them");
    // Each flood between the two times alone beside it.
    let ratios = flooded.iter().zip(alone.windows(2)).map(|(flooded, alone)| 2.0 * flooded / (alone[0] + alone[1]));
    report::budget("flood_good_p99_to_alone", stats::median(ratios.collect()), RATIO_LIMIT);
    report::budget("flood_memory_growth_mib", grown, GROWTH_MIB_LIMIT);
    ground.postgres.stop().await.unwrap();
}

/// Transactions of the database so far, as far as its connections have told.
async fn transactions(ground: &Ground) -> i64 {
    let query = "SELECT xact_commit::text AS line FROM pg_stat_database WHERE datname = current_database()";
    // A connection's end is told a moment later.
    tokio::time::sleep(PAUSE).await;
    sql::lines(&ground.database, query).await[0].parse().unwrap()
}

// === impl Bench ===

impl Bench {
    /// A server with default settings, with every good key in its cache.
    async fn start(ground: &Ground, token: String) -> Self {
        let start = on(&ground.database.app_url, &["serve", "--listen-address", "127.0.0.1:0"]);
        let mut server = start.env("LATCHKEY_LOG_FILTER", LOGS).spawn();
        let address = server.address(START_LIMIT);
        let good = Caller { channel: connect(address).await, token, on_behalf_of: None };
        let flooder = Caller { channel: connect(address).await, ..good.clone() };
        for from in (0..GOOD.count).step_by(1_000) {
            load::verify(good.clone(), from..from + 1_000).await;
        }
        let mut bench = Self { server, good, flooder, alone: vec![], flooded: vec![], answers: BTreeMap::new() };
        // The first one warms up.
        bench.alone().await;
        bench.alone.clear();
        bench
    }

    async fn alone(&mut self) {
        let mut spans = Good::new(self.good.clone(), GOOD.count).run(ALONE).await;
        self.alone.push(print("alone", &mut spans));
        tokio::time::sleep(PAUSE).await;
    }

    async fn flooded(&mut self, round: u64) {
        // Beyond the numbers of the good ones, and each once.
        let tokens = load::UNKNOWN_A_SECOND * FLOODED.as_secs();
        let flood = Flood::new(self.flooder.clone(), GOOD.count + round * tokens, tokens);
        let (mut spans, answers) = tokio::join!(Good::new(self.good.clone(), GOOD.count).run(FLOODED), flood.run());
        self.flooded.push(print("beside a flood", &mut spans));
        let rate = tokens as f64 / answers.took.as_secs_f64();
        println!("  {rate:.0} unknown tokens a second, by answer: {:?}", answers.tokens);
        for (answer, tokens) in answers.tokens {
            *self.answers.entry(answer).or_default() += tokens;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Their p99 in milliseconds.
fn print(name: &str, spans: &mut [Duration]) -> f64 {
    let [p50, p99, max] = [50, 99, 100].map(|percent| spans::quantile_ms(spans, percent));
    println!("{name:<16} n {:>6}  p50 {p50:>8.3}  p99 {p99:>8.3}  max {max:>8.3} ms", spans.len());
    p99
}

/// The answer's name in the table.
fn named(code: Code) -> &'static str {
    match code {
        Code::Ok => "UNKNOWN",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "another error",
    }
}
