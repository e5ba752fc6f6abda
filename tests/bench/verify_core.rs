//! What one verification costs inside the process: see the README beside this file.
#![expect(clippy::unwrap_used, reason = "a benchmark fails where it stands")]

#[path = "core/database.rs"]
mod database;
#[path = "core/pieces.rs"]
mod pieces;
mod report;
mod stats;

use std::{hint::black_box, sync::Arc};

use database::{ACCOUNTS, Keys, PERMISSION};
use latchkey::{
    domain::{
        id::{AccountId, TeamId},
        permissions::permission::Bit,
        token::{ParsedToken, Pepper},
        verification::{Outcome, Requirement},
    },
    verify::{LookupBuffer, Question, RandomIncarnations, ReplicaIdentity, Verifier, VerifyLimits, clock::BootClock},
};
use quick_cache::sync::Cache;

const KEYS: usize = 1_000_000;
/// One after the other in each round, so that a slow moment of the machine weighs on all lines alike; and long enough
/// for each to have the caches to itself.
const ROUNDS: usize = 15;
const CALLS: usize = 200_000;
const BATCH: usize = 1_000;

/// One thing that is measured: nanoseconds a call, one figure a round.
struct Measured<'a> {
    name: &'static str,
    run: Box<dyn FnMut(usize) + 'a>,
    nanos: Vec<f64>,
}

struct Bench {
    keys: Arc<Keys>,
    verifier: Verifier,
    pepper: Pepper,
    bytes_per_key: usize,
}

/// Tokens one after the other in memory, as a socket would hand them over.
struct Presented {
    bytes: Vec<u8>,
    accounts: Vec<u16>,
    at: usize,
    each: usize,
}

fn main() {
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = runtime.block_on(Bench::start());
    bench.measure();
}

impl Bench {
    /// A replica that holds every key in memory.
    async fn start() -> Self {
        let pepper = Pepper::new("p1".into(), &[7; 32].into());
        let keys = Arc::new(Keys::new(KEYS, &pepper));
        let limits = VerifyLimits {
            cached_tokens_max: KEYS,
            lease: std::time::Duration::from_secs(600),
            shared_bytes_max: 256 << 20,
            unknown_tokens_max: 100_000,
            ended_tokens_max: 100_000,
            misses_in_flight_max: 256,
            unknown_loads_per_second_max: 500,
            unknown_loads_burst_max: 2_000,
            ended_loads_per_second_max: 50,
            miss_timeout: std::time::Duration::from_secs(2),
            stale_max: std::time::Duration::ZERO,
            poll_interval: std::time::Duration::from_secs(1),
            used_marks_max: latchkey::verify::USED_MARKS_MAX,
            late_tokens_max: latchkey::verify::LATE_TOKENS_MAX,
            late_events_per_hour_max: 1_000,
            late_events_per_account_hour_max: 100,
        };
        let identity = ReplicaIdentity { name: "bench".into(), incarnations: Box::new(RandomIncarnations) };
        let live = vec![Pepper::new("p1".into(), &[7; 32].into())];
        let (verifier, mut follower) = Verifier::new(keys.clone(), Arc::new(BootClock), live, limits, identity);
        follower.round().await.unwrap();
        let mut bench = Self { keys, verifier, pepper, bytes_per_key: 0 };
        let before = pieces::resident_bytes();
        for place in 0..KEYS {
            let found = bench.verifier.verify(bench.keys.token(place), None).await.unwrap();
            assert_eq!(found.outcome(), Outcome::Valid);
        }
        let bytes = (pieces::resident_bytes() - before) as f64 / KEYS as f64;
        let resident =
            (0..KEYS).filter(|place| bench.verifier.cached(bench.keys.token(*place), None).is_some()).count();
        println!("{KEYS} keys of 8 permissions and 2 teams, {resident} of them resident after the fill");
        report::budget("resident_bytes_per_key", bytes, 256.0);
        bench.bytes_per_key = bytes as usize;
        bench
    }

    /// Of each account: what its keys are good for.
    fn requirements() -> Vec<Requirement> {
        let permission = Bit::catalogue(PERMISSION).unwrap();
        let account = |number| AccountId::from_stored(&Keys::account(number));
        (0..ACCOUNTS).map(|number| Requirement { account_id: account(number), permission, team_ids: vec![] }).collect()
    }

    fn measure(&self) {
        let Self { keys, verifier, pepper, .. } = self;
        let requirements = Self::requirements();
        let ask = |(token, account): (&[u8], usize)| {
            let reader = verifier.cache_reader();
            let token = reader.prefetch(black_box(token));
            let memory = reader.now().unwrap();
            _ = black_box(memory.answer(&token, Some(&requirements[account]), &mut LookupBuffer::default()));
        };
        let hot_token = keys.token(0);
        (0..KEYS).for_each(|place| {
            let answer = verifier.cached(keys.token(place), Some(&requirements[place % ACCOUNTS]));
            assert_eq!(answer.unwrap().outcome(), Outcome::Valid);
        });
        let mut random = Presented::new(keys, pieces::Order::uniform);
        let mut zipf = Presented::new(keys, pieces::Order::zipf);
        let mut batch = Presented::new(keys, pieces::Order::uniform);
        let mut general_order = Presented::new(keys, pieces::Order::uniform);
        let unknown = database::invented();
        let mut typo = hot_token.to_vec();
        typo.iter_mut().last().into_iter().for_each(|last| *last = if *last == b'0' { b'1' } else { b'0' });
        let chase = pieces::Chase::new(KEYS * self.bytes_per_key);
        let mut at = 0;
        let general: Cache<[u8; 32], Arc<[u8; 192]>> = Cache::new(KEYS + KEYS / 8);
        (0..KEYS).for_each(|place| general.insert(keys.digest(place), Arc::new([0; 192])));
        let clock = BootClock;

        let mut all = vec![
            Measured::new("CRC", |_| _ = black_box(crc32fast::hash(black_box(&hot_token[..hot_token.len() - 6])))),
            Measured::new("keyed BLAKE3", |_| {
                _ = black_box(blake3::keyed_hash(black_box(&[7; 32]), black_box(hot_token)));
            }),
            Measured::new("clock", |_| _ = black_box(latchkey::verify::clock::Clock::boot_micros(&clock))),
            Measured::new("one dependent load", |_| at = chase.next(at)),
            Measured::new("hot", |_| ask((hot_token, 0))),
            Measured::new("random", |_| ask(random.next())),
            Measured::new("Zipf", |_| ask(zipf.next())),
            Measured::new("batch of 1,000", |call| {
                if call % BATCH == 0 {
                    let questions = batch.questions(&requirements);
                    verifier.memory().unwrap().verify_many(black_box(&questions), |_, answer| _ = black_box(answer));
                }
            }),
            Measured::new("quick_cache of Arc, random", |_| {
                let digest = ParsedToken::parse(general_order.next().0).unwrap().hash(pepper);
                _ = black_box(general.get(digest.as_bytes()));
            }),
            Measured::new("unknown", |_| ask((unknown.as_bytes(), 0))),
            Measured::new("malformed, a typo", |_| ask((&typo, 0))),
            Measured::new("malformed, no token", |_| ask((b"lk_nonsense", 0))),
        ];
        for _ in 0..ROUNDS {
            all.iter_mut().for_each(Measured::round);
        }
        println!("{:<28} {:>9} {:>9}", "", "median ns", "least ns");
        all.iter().for_each(|measured| {
            println!("{:<28} {:>9.0} {:>9.0}", measured.name, measured.median(), measured.least())
        });
        ratios(&all);
        drop(all);
        let questions = batch.questions(&requirements);
        let hits = || {
            (0..CALLS).for_each(|_| ask((hot_token, 0)));
            verifier.memory().unwrap().verify_many(&questions, |_, answer| _ = black_box(answer));
        };
        report::budget("hit_allocations", allocation_counter::measure(hits).count_total as f64, 0.0);
    }
}

/// Budgets of time: the median of the rounds' own ratios.
fn ratios(all: &[Measured<'_>]) {
    let by = |name: &str| all.iter().find(|measured| measured.name == name).unwrap();
    let ratio = |of: &str, to: &dyn Fn(usize) -> f64| {
        stats::median((0..ROUNDS).map(|round| by(of).nanos[round] / to(round)).collect())
    };
    let pieces = |round: usize| by("CRC").nanos[round] + by("keyed BLAKE3").nanos[round] + by("clock").nanos[round];
    report::budget("hot_to_its_pieces", ratio("hot", &pieces), 1.6);
    let miss = |round: usize| by("hot").nanos[round] + by("one dependent load").nanos[round];
    report::budget("random_to_hot_and_one_load", ratio("random", &miss), 1.25);
    report::budget("batch_to_random", ratio("batch of 1,000", &|round| by("random").nanos[round]), 0.6);
}

impl Presented {
    /// So many that no cache but the replica's own has seen them lately.
    fn new(keys: &Keys, place: fn(&mut pieces::Order) -> usize) -> Self {
        let mut order = pieces::Order::new(KEYS);
        let places: Vec<_> = (0..KEYS).map(|_| place(&mut order)).collect();
        let bytes = places.iter().flat_map(|place| keys.token(*place)).copied().collect();
        let accounts = places.iter().map(|place| (place % ACCOUNTS) as u16).collect();
        Self { bytes, accounts, at: 0, each: keys.token(0).len() }
    }

    /// The next token, and the number of its account.
    fn next(&mut self) -> (&[u8], usize) {
        let place = self.at;
        self.at = (place + 1) % KEYS;
        self.token(place)
    }

    fn token(&self, place: usize) -> (&[u8], usize) {
        (&self.bytes[place * self.each..][..self.each], usize::from(self.accounts[place]))
    }

    fn questions<'a>(&'a mut self, requirements: &'a [Requirement]) -> Vec<Question<'a, AccountId, Vec<TeamId>>> {
        let start = if self.at + BATCH > KEYS { 0 } else { self.at };
        self.at = start + BATCH;
        let question =
            |(token, account): (&'a [u8], usize)| Question { token, requirement: Some(&requirements[account]) };
        (start..self.at).map(|place| question(self.token(place))).collect()
    }
}

impl<'a> Measured<'a> {
    fn new(name: &'static str, run: impl FnMut(usize) + 'a) -> Self {
        Self { name, run: Box::new(run), nanos: Vec::new() }
    }

    fn round(&mut self) {
        let started = pieces::cpu_nanos();
        (0..CALLS).for_each(&mut self.run);
        self.nanos.push((pieces::cpu_nanos() - started) as f64 / CALLS as f64);
    }

    fn median(&self) -> f64 {
        stats::median(self.nanos.clone())
    }

    fn least(&self) -> f64 {
        self.nanos.iter().copied().fold(f64::INFINITY, f64::min)
    }
}
