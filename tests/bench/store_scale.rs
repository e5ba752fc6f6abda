//! What a million keys cost that a thousand do not, and a large account that a small one does not: see the README beside
//! this file. With `LATCHKEY_BENCH_KEYS`, what so many keys cost.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

#[path = "scale/big.rs"]
mod big;
#[path = "scale/creates.rs"]
mod creates;
#[path = "scale/keys.rs"]
mod keys;
mod report;
mod resident;
#[path = "scale/side.rs"]
mod side;
mod spans;
mod stats;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use big::Big;
use keys::Keys;
use side::{Call, Side};
use support::{database::Database, ground::Ground, process::Signal};
use tokio::task::JoinSet;

const FEW: Keys = Keys { count: 1_000, accounts: 20 };
const FEW_BIG: Big = Big { users: 1_000, keys: 1_000, teams: 10 };
const MANY_BIG: Big = Big { users: 100_000, keys: 200_000, teams: 1_000 };
/// Of the larger store, if `LATCHKEY_BENCH_KEYS` says nothing else.
const MANY_KEYS: u64 = 1_000_000;
const KEYS_PER_ACCOUNT: u64 = 4_000;
/// What calls read of the some 1,400 bytes that a key takes of the database, with its indexes and its part of the log.
const BUFFER_BYTES_PER_KEY: u64 = 1_024;
/// With the warm-up each key of the smaller store misses once.
const ROUNDS: usize = 24;
const CALLS: usize = 40;
const RATIO_LIMIT: f64 = 1.3;
/// Of a store of ten million keys and more, and of calls of a large account.
const LARGE_RATIO_LIMIT: f64 = 1.5;
const LARGE: u64 = 10_000_000;
const STARTS: usize = 5;
/// Keys whose memory is measured, and those before them that fill the buffers and pools of the process: of so many
/// accounts, whatever the store has, since what keys of one account share is a part of what each of them takes.
const RESIDENT_ACCOUNTS: u64 = 250;
const RESIDENT: u64 = 200_000;
const RESIDENT_WARM_UP: u64 = 10_000;
const RESIDENT_LIMIT: f64 = 256.0;
const BATCH: u64 = 200;
const BATCHES_AT_ONCE: usize = 2;
const STOP_LIMIT: Duration = Duration::from_secs(30);

struct Bench {
    ground: Ground,
    keys: Keys,
    few: Side,
    many: Side,
}

fn main() {
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let keys = many();
    // What calls read of the larger store fits, as it would where so many keys are served; and the load forces no checkpoints.
    let buffers = format!("{}MB", (keys.count * BUFFER_BYTES_PER_KEY / 1_048_576).max(2_048));
    let settings = [("shared_buffers", buffers), ("max_wal_size", "8GB".to_owned())];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let ground = Ground::new("scale", settings.into()).await;
    let cores = std::thread::available_parallelism().unwrap();
    println!("PostgreSQL {}, {cores} cores; {} and {} keys", ground.postgres.major(), FEW.count, keys.count);
    let few = database(&ground, "few").await;
    let many = database(&ground, "many").await;
    let started = Instant::now();
    let operators = [side::fill(&ground, &few, FEW, FEW_BIG).await, side::fill(&ground, &many, keys, MANY_BIG).await];
    println!("loaded in {:.0} s", started.elapsed().as_secs_f64());
    let equal = creates::equal_database(&ground, &few).await;
    let [few_operator, many_operator] = operators;
    let few = Side::start(few, &few_operator, FEW).await.with_big(FEW_BIG).await;
    let many = Side::start(many, &many_operator, keys).await.with_big(MANY_BIG).await;
    let mut bench = Bench { ground, keys, few, many };
    bench.compare().await;
    creates::compare(&bench.ground, &equal, &mut bench.few).await;
    let Bench { ground, few, many, .. } = bench;
    stop(few);
    let side::Ended { database, operator } = stop(many);
    starts(&database, &operator, keys).await;
    memory(&database, &operator, keys).await;
    ground.postgres.stop().await.unwrap();
}

/// The larger store.
fn many() -> Keys {
    let asked = std::env::var("LATCHKEY_BENCH_KEYS").ok();
    let count = asked.map_or(MANY_KEYS, |count| count.parse().expect("LATCHKEY_BENCH_KEYS is a number of keys"));
    // A round number of keys an account, and all that the last part of this benchmark verifies.
    assert!(
        count >= RESIDENT + RESIDENT_WARM_UP && count.is_multiple_of(KEYS_PER_ACCOUNT),
        "too few, or no multiple of 4,000"
    );
    Keys { count, accounts: count / KEYS_PER_ACCOUNT }
}

/// A migrated database.
async fn database(ground: &Ground, name: &str) -> Database {
    ground.postgres.create_database(name, Some(&ground.database.name)).await.unwrap();
    Database {
        name: name.into(),
        app_url: ground.postgres.app_url(name).unwrap(),
        owner_url: ground.postgres.owner_url(name).unwrap(),
    }
}

/// Ends its server, which writes down what it has to.
fn stop(side: Side) -> side::Ended {
    side.server.signal(Signal::TERM);
    side.server.wait(STOP_LIMIT).success();
    side::Ended { database: side.database, operator: side.operator }
}

impl Bench {
    /// Calls of one kind alternate between the stores: a round's ratio is of two spans right after each other.
    async fn compare(&mut self) {
        // Each page of PostgreSQL's buffers costs a server process a page fault when it first touches it, and 25 rounds
        // touch all of the smaller store's and a part of the larger's.
        self.few.list_all().await;
        let cold = median(&self.many.list_all().await) * 1e3;
        println!("list of an account whose keys no server process has touched: p50 {cold:.3} ms");
        let mut ratios: [Vec<f64>; Call::ALL.len()] = Default::default();
        let mut spans: [[Vec<Duration>; 2]; Call::ALL.len()] = Default::default();
        for round in 0..=ROUNDS {
            for (index, call) in Call::ALL.into_iter().enumerate() {
                let [few, many] = if round % 2 == 0 {
                    let few = self.few.calls(call, CALLS).await;
                    [few, self.many.calls(call, CALLS).await]
                } else {
                    let many = self.many.calls(call, CALLS).await;
                    [self.few.calls(call, CALLS).await, many]
                };
                // The first warms up.
                if round > 0 {
                    ratios[index].push(median(&many) / median(&few));
                    spans[index][0].extend(few);
                    spans[index][1].extend(many);
                }
            }
        }
        let size = format!("{}m", self.keys.count / 1_000_000);
        let p50 = format!("{size} p50 ms");
        println!("{:<18} {:>12} {:>12} {:>12} {:>12}", "", "1k p50 ms", "p99", p50, "p99");
        for (call, [few, many]) in Call::ALL.into_iter().zip(&mut spans) {
            let [few, many] = [few, many].map(|spans| [50, 99].map(|percent| spans::quantile_ms(spans, percent)));
            println!("{:<18} {:>12.3} {:>12.3} {:>12.3} {:>12.3}", call.name(), few[0], few[1], many[0], many[1]);
        }
        for (call, ratios) in Call::ALL.into_iter().zip(ratios) {
            let is_large = self.keys.count >= LARGE || call.is_of_big();
            let limit = if is_large { LARGE_RATIO_LIMIT } else { RATIO_LIMIT };
            report::budget(&format!("{}_{size}_to_1k", call.name()), stats::median(ratios), limit);
        }
    }
}

/// From the start of the process to its first answers, with what PostgreSQL read for the calls before still in its
/// caches.
async fn starts(database: &Database, operator: &str, keys: Keys) {
    let mut to_serve = Vec::new();
    let mut to_verify = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let mut side = Side::start(database.clone(), operator, keys).await;
        to_serve.push(spans::ms(side.serving.duration_since(started)));
        side.calls(Call::VerifyMiss, 1).await;
        to_verify.push(spans::ms(started.elapsed()));
        stop(side);
    }
    println!(
        "start on {} keys: spawn to serving {:.0} ms, to the first key verified {:.0} ms (median of {STARTS})",
        keys.count,
        stats::median(to_serve),
        stats::median(to_verify)
    );
}

/// What the real server's memory grows by when it is asked for keys that it does not hold.
async fn memory(database: &Database, operator: &str, keys: Keys) {
    let room = ("LATCHKEY_CACHE_KEYS_MAX", (RESIDENT + RESIDENT_WARM_UP).to_string());
    let side = Side::start_with(database.clone(), operator, keys, &[room]).await;
    verify_all(&side, 0..RESIDENT_WARM_UP).await;
    let before = resident::bytes(side.server.id());
    let started = Instant::now();
    verify_all(&side, RESIDENT_WARM_UP..RESIDENT_WARM_UP + RESIDENT).await;
    let rate = RESIDENT as f64 / started.elapsed().as_secs_f64();
    let grown = resident::bytes(side.server.id()) - before;
    println!(
        "{RESIDENT} keys read into a cache with room for them: {:.0} MiB more, {rate:.0} misses a second",
        grown as f64 / 1_048_576.0
    );
    report::budget("server_resident_bytes_per_key", grown as f64 / RESIDENT as f64, RESIDENT_LIMIT);
    stop(side);
}

async fn verify_all(side: &Side, numbers: std::ops::Range<u64>) {
    let mut batches = JoinSet::new();
    for from in numbers.clone().step_by(BATCH as usize) {
        if batches.len() == BATCHES_AT_ONCE {
            batches.join_next().await.unwrap().unwrap();
        }
        let numbers = (from..numbers.end.min(from + BATCH)).map(|place| resident_number(place, side.keys()));
        batches.spawn(side::verify_batch(side.caller.clone(), numbers.collect()));
    }
    while let Some(batch) = batches.join_next().await {
        batch.unwrap();
    }
}

/// The keys of the first accounts, in order.
fn resident_number(place: u64, keys: Keys) -> u64 {
    let accounts = RESIDENT_ACCOUNTS.min(keys.accounts);
    place / accounts * keys.accounts + place % accounts
}

fn median(spans: &[Duration]) -> f64 {
    stats::median(spans.iter().map(Duration::as_secs_f64).collect())
}
