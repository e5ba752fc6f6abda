//! What each mechanism of a verification is worth, end to end: see the README beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

#[path = "rpc/cpu.rs"]
mod cpu;
#[expect(dead_code, reason = "another benchmark asks for keys by their ids")]
#[path = "scale/keys.rs"]
mod keys;
#[path = "rpc/many.rs"]
mod many;
#[expect(dead_code, reason = "it has no budgets")]
mod report;
mod stats;
#[path = "../support/mod.rs"]
mod support;
#[path = "ablation/unary.rs"]
mod unary;

use std::{
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use cpu::Cpu;
use keys::{ACCOUNT_PERMISSIONS, Keys, TEAM_PERMISSIONS, TEAMS, token};
use latchkey::proto::{Requirement, TokenCheck, VerificationOutcome, VerifyTokensRequest};
use many::Checks;
use support::{
    Caller,
    ground::{Ground, START_LIMIT},
    process::Process,
    server::connect,
    world::{apply_example_catalogue, create, key},
};
use tokio::task::JoinSet;
use tonic::Code;

/// A million, if `LATCHKEY_BENCH_KEYS` says nothing else: a multiple of those of an account.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let count = asked("LATCHKEY_BENCH_KEYS", 1_000_000);
    Keys { count, accounts: count / KEYS_PER_ACCOUNT }
});
const KEYS_PER_ACCOUNT: u64 = 4_000;
const BUFFERS: &str = "1GB";
/// If `LATCHKEY_BENCH_ROUNDS` says nothing else.
const ROUNDS: u64 = 15;
/// Requests of a unary measurement, and tokens of another.
const REQUESTS: usize = 40_000;
const TOKENS: usize = 256_000;
const CONNECTIONS: usize = 4;
const BATCH: usize = 1_000;
const FILL_BATCHES_AT_ONCE: u64 = 2;
const RETRY: Duration = Duration::from_millis(500);
/// After it a server has read anew what it is to do without.
const CHOSEN: Duration = Duration::from_millis(40);
const VARIABLE: &str = "LATCHKEY_BENCH_WITHOUT";
const LOGS: &str = "warn,latchkey=info";

/// What a server does without, and which of the servers.
const VARIANTS: [(&str, Which); 7] = [
    ("", Which::First),
    ("", Which::First),
    ("arrived", Which::First),
    ("prefetch", Which::First),
    ("requirement-memo", Which::First),
    ("", Which::Second),
    ("salts", Which::Unsalted),
];
const LOADS: [Load; 4] = [Load::Unary, Load::Batches, Load::BatchesOfAccount, Load::Streams];

/// One of the servers: what stands in memory where is another matter in each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    /// Like the first: what differs between both is chance.
    Second,
    /// Where entries stand is decided when they come, so this one is always without salts.
    Unsalted,
}

#[derive(Clone, Copy)]
enum Load {
    Unary,
    Batches,
    /// All checks of a batch are of one account.
    BatchesOfAccount,
    Streams,
}

struct Served {
    process: Process,
    /// Says what to do without.
    file: tempfile::NamedTempFile,
    callers: Vec<Caller>,
    address: SocketAddr,
    verifier: String,
}

/// What one variant cost under one load, a round.
#[derive(Default)]
struct Figures {
    micros: Vec<f64>,
    rates: Vec<f64>,
}

fn main() {
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let settings = [("shared_buffers", BUFFERS), ("max_wal_size", "8GB")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let ground = Ground::new("ablation", settings.into()).await;
    let operator = ground.bootstrap();
    let (mut server, caller) = ground.serve(&operator, LOGS).await;
    apply_example_catalogue(&caller).await;
    let verifier = create(&caller, "system", &key("verifier", &["system.verify"])).await.unwrap().token;
    server.kill();
    let started = Instant::now();
    KEYS.load(&ground.postgres.superuser_url(&ground.database.name)).await;
    println!("{} keys loaded in {:.0} s", KEYS.count, started.elapsed().as_secs_f64());
    let mut servers = Vec::new();
    for without in ["", "", "salts"] {
        servers.push(Served::start(&ground, &verifier, without).await);
    }
    let started = Instant::now();
    let fills: Vec<_> = servers.iter().map(|server| tokio::spawn(fill(server.callers[0].clone()))).collect();
    for fill in fills {
        fill.await.unwrap();
    }
    println!("read by {} servers in {:.0} s", servers.len(), started.elapsed().as_secs_f64());
    measure(&servers).await;
    drop(servers);
    ground.postgres.stop().await.unwrap();
}

/// A number that a variable may say.
fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().expect("a number"))
}

/// Has a server read all keys into its memory.
async fn fill(caller: Caller) {
    let mut batches = JoinSet::new();
    let size = BATCH as u64 / 5;
    for from in (0..KEYS.count).step_by(size as usize) {
        if batches.len() as u64 == FILL_BATCHES_AT_ONCE {
            batches.join_next().await.unwrap().unwrap();
        }
        let caller = caller.clone();
        batches.spawn(async move {
            let checks = (from..from + size).map(|number| TokenCheck { requirement: None, ..check(number) }).collect();
            let request = VerifyTokensRequest { checks, min_revision: None };
            let mut tokens = caller.tokens();
            // On a busy machine the database may be slow for a moment.
            let results = loop {
                match tokens.verify_tokens(request.clone()).await {
                    Ok(answer) => break answer.into_inner().results,
                    Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(RETRY).await,
                    Err(status) => panic!("{status}"),
                }
            };
            assert!(results.iter().all(|result| result.outcome() == VerificationOutcome::Valid));
        });
    }
    while let Some(batch) = batches.join_next().await {
        batch.unwrap();
    }
}

/// The question about a key: for half of them about the account, for half about a team.
fn check(number: u64) -> TokenCheck {
    let row = number / KEYS.accounts;
    let (permission, team_ids) = if row.is_multiple_of(2) {
        (ACCOUNT_PERMISSIONS[2], vec![])
    } else {
        (TEAM_PERMISSIONS[1], vec![format!("team-{}", row % TEAMS)])
    };
    let requirement = Requirement { account_id: KEYS.account(number), permission: permission.into(), team_ids };
    TokenCheck { token: token(number).reveal().to_owned(), requirement: Some(requirement) }
}

/// All keys, in an order that nothing in memory shares.
fn scattered() -> Checks {
    Checks::new((0..KEYS.count).map(|call| check(KEYS.scattered(call))).collect())
}

/// All keys, a batch of one account after another.
fn by_account() -> Checks {
    let batch = BATCH as u64;
    let number = |place: u64| {
        let (block, row) = (place / batch, place % batch);
        block % KEYS.accounts + (block / KEYS.accounts * batch + row) * KEYS.accounts
    };
    Checks::new((0..KEYS.count).map(|place| check(number(place))).collect())
}

async fn measure(servers: &[Served]) {
    let (scattered, by_account) = (scattered(), by_account());
    let mut figures: [[Figures; VARIANTS.len()]; LOADS.len()] = Default::default();
    let rounds = asked("LATCHKEY_BENCH_ROUNDS", ROUNDS) as usize;
    println!("measuring {rounds} rounds");
    for round in 0..=rounds {
        for (load, figures) in LOADS.into_iter().zip(&mut figures) {
            for turn in 0..VARIANTS.len() {
                // Each comes first, last and in between.
                let place = if round % 2 == 0 { turn } else { VARIANTS.len() - 1 - turn };
                let place = (place + round) % VARIANTS.len();
                let (without, which) = VARIANTS[place];
                let server = &servers[which as usize];
                server.choose(without).await;
                let before = Cpu::of(server.process.id());
                let (count, rate) = match load {
                    Load::Unary => (REQUESTS, unary::run(server.address, &server.verifier, &scattered, REQUESTS).await),
                    Load::Batches => (TOKENS, many::batches(&server.callers, &scattered, BATCH, TOKENS).await),
                    Load::BatchesOfAccount => {
                        (TOKENS, many::batches(&server.callers, &by_account, BATCH, TOKENS).await)
                    }
                    Load::Streams => (TOKENS, many::streams(&server.callers, &scattered, TOKENS).await),
                };
                // The first round warms up.
                if round > 0 {
                    figures[place].micros.push(before.spent().as_secs_f64() * 1e6 / count as f64);
                    figures[place].rates.push(rate);
                }
            }
        }
    }
    for (load, figures) in LOADS.into_iter().zip(&figures) {
        print(load, figures);
    }
}

/// A table: each variant beside that with everything.
fn print(load: Load, figures: &[Figures]) {
    let name = match load {
        Load::Unary => "VerifyToken",
        Load::Batches => "VerifyTokens of 1,000",
        Load::BatchesOfAccount => "VerifyTokens of 1,000, one account",
        Load::Streams => "StreamVerifyTokens of 32",
    };
    println!(
        "\n{name:<36} {:>10} {:>10}   server CPU to all: quartiles     rate to all: quartiles",
        "CPU, us", "a second"
    );
    for ((without, which), own) in VARIANTS.into_iter().zip(figures) {
        let name = match (without, which) {
            ("", Which::First) => "all".to_owned(),
            ("", _) => "all, another process".to_owned(),
            _ => format!("without {without}"),
        };
        // Another process is compared with one that is as much another.
        let base = if which == Which::Unsalted { &figures[VARIANTS.len() - 2] } else { &figures[0] };
        let [low, middle, high] = quartiles(&own.micros, &base.micros);
        let [rate_low, rate_middle, rate_high] = quartiles(&own.rates, &base.rates);
        println!(
            "{name:<36} {:>10.3} {:>10.0}   {middle:>8.3} ({low:.3} to {high:.3})   {rate_middle:>8.3} ({rate_low:.3} to {rate_high:.3})",
            stats::median(own.micros.clone()),
            stats::median(own.rates.clone()),
        );
    }
}

/// Of the rounds' own ratios.
fn quartiles(own: &[f64], base: &[f64]) -> [f64; 3] {
    let mut ratios: Vec<f64> = own.iter().zip(base).map(|(own, base)| own / base).collect();
    ratios.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| ratios[quarter * (ratios.len() - 1) / 4])
}

// === impl Served ===

impl Served {
    async fn start(ground: &Ground, verifier: &str, without: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), without).unwrap();
        let start = ground.latchkey(&["serve", "--listen-address", "127.0.0.1:0"]);
        let start = start.env("LATCHKEY_LOG_FILTER", LOGS).env(VARIABLE, file.path().to_str().unwrap());
        let mut process = start.env("LATCHKEY_CACHE_KEYS_MAX", (KEYS.count * 2).to_string()).spawn();
        let address = process.address(START_LIMIT);
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            callers.push(Caller { channel: connect(address).await, token: verifier.into(), on_behalf_of: None });
        }
        Self { process, file, callers, address, verifier: verifier.into() }
    }

    async fn choose(&self, without: &str) {
        std::fs::write(self.file.path(), without).unwrap();
        tokio::time::sleep(CHOSEN).await;
    }
}
