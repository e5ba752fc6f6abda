//! What one verification costs inside the process: see the README beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

#[path = "core/database.rs"]
mod database;
#[path = "core/pieces.rs"]
mod pieces;
mod report;
mod stats;

use std::{hint::black_box, sync::Arc, time::Instant};

use database::{Keys, PERMISSION};
use latchkey::{
    domain::{
        id::AccountId,
        permission::Bit,
        token::Pepper,
        verification::{Outcome, Requirement},
    },
    verify::{Identity, Limits, RandomIncarnations, Verifier, clock::BootClock},
};
use quick_cache::sync::Cache;

const KEYS: usize = 1_000_000;
const ROUNDS: usize = 15;
const CALLS: usize = 100_000;
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
        let limits =
            Limits { cached_tokens_max: KEYS, lease: std::time::Duration::from_secs(600), ..Limits::default() };
        let identity = Identity { name: "bench".into(), incarnations: Box::new(RandomIncarnations) };
        let live = vec![Pepper::new("p1".into(), &[7; 32].into())];
        let (verifier, mut follower) = Verifier::new(keys.clone(), Arc::new(BootClock), live, limits, identity);
        follower.round().await.unwrap();
        let bench = Self { keys, verifier, pepper };
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
        bench
    }

    fn requirement() -> Requirement {
        Requirement {
            account_id: AccountId::from_stored("a1"),
            permission: Bit::catalogue(PERMISSION).unwrap(),
            team_ids: vec![],
        }
    }

    fn measure(&self) {
        let Self { keys, verifier, pepper, .. } = self;
        let requirement = Self::requirement();
        let ask = |token: &[u8]| black_box(verifier.cached(black_box(token), Some(&requirement)));
        // A key of the account that the requirement names, and resident.
        let hot = (0..KEYS).find(|place| keys.account(*place) == "a1" && ask(keys.token(*place)).is_some()).unwrap();
        let resident: Vec<_> = (0..KEYS).filter(|place| ask(keys.token(*place)).is_some()).collect();
        let mut order = pieces::Order::new(resident.len());
        let mut zipf = pieces::Order::new(resident.len());
        let mut batch_order = pieces::Order::new(resident.len());
        let unknown = database::invented();
        let chase = pieces::Chase::new(resident.len() * 256);
        let mut at = 0;
        let general: Cache<[u8; 32], Arc<[u8; 192]>> = Cache::new(KEYS + KEYS / 8);
        resident.iter().for_each(|place| general.insert(keys.digest(*place), Arc::new([0; 192])));
        let mut general_order = pieces::Order::new(resident.len());
        let hot_token = keys.token(hot);
        let clock = BootClock;

        let mut all = vec![
            Measured::new("CRC", |_| _ = black_box(crc32fast::hash(black_box(&hot_token[..hot_token.len() - 6])))),
            Measured::new("keyed BLAKE3", |_| {
                _ = black_box(blake3::keyed_hash(black_box(&[7; 32]), black_box(hot_token)));
            }),
            Measured::new("clock", |_| _ = black_box(latchkey::verify::clock::Clock::boot_micros(&clock))),
            Measured::new("one dependent load", |_| at = chase.next(at)),
            Measured::new("hot", |_| _ = ask(hot_token)),
            Measured::new("random", |_| _ = ask(keys.token(resident[order.uniform()]))),
            Measured::new("Zipf", |_| _ = ask(keys.token(resident[zipf.zipf()]))),
            Measured::new("batch", |call| {
                if call % BATCH == 0 {
                    (0..BATCH).for_each(|_| _ = ask(keys.token(resident[batch_order.uniform()])));
                }
            }),
            Measured::new("quick_cache of Arc, random", |_| {
                let token = keys.token(resident[general_order.uniform()]);
                let digest = latchkey::domain::token::ParsedToken::parse(token).unwrap().hash(pepper);
                _ = black_box(general.get(digest.as_bytes()));
            }),
            Measured::new("unknown", |_| _ = black_box(verifier.cached(black_box(unknown.as_bytes()), None))),
            Measured::new("malformed", |_| _ = black_box(verifier.cached(black_box(b"lk_nonsense"), None))),
        ];
        for _ in 0..ROUNDS {
            all.iter_mut().for_each(Measured::round);
        }
        let allocations = allocation_counter::measure(|| (0..CALLS).for_each(|_| _ = ask(hot_token))).count_total;
        println!("{:<28} {:>9} {:>9}", "", "median ns", "least ns");
        all.iter().for_each(|measured| {
            println!("{:<28} {:>9.0} {:>9.0}", measured.name, measured.median(), measured.least())
        });
        let by = |name: &str| all.iter().find(|measured| measured.name == name).unwrap();
        let ratio = |of: &Measured<'_>, to: &dyn Fn(usize) -> f64| {
            stats::median((0..ROUNDS).map(|round| of.nanos[round] / to(round)).collect())
        };
        let pieces = |round: usize| by("CRC").nanos[round] + by("keyed BLAKE3").nanos[round] + by("clock").nanos[round];
        let hot_ratio = ratio(by("hot"), &pieces);
        let miss = |round: usize| by("hot").nanos[round] + by("one dependent load").nanos[round];
        let random_ratio = ratio(by("random"), &miss);
        let batch_ratio = ratio(by("batch"), &|round| by("random").nanos[round]);
        drop(all);
        report::budget("hot_to_its_pieces", hot_ratio, 1.6);
        report::budget("random_to_hot_and_one_load", random_ratio, 1.25);
        report::budget("batch_to_random", batch_ratio, 0.6);
        report::budget("hot_allocations", allocations as f64, 0.0);
    }
}

impl<'a> Measured<'a> {
    fn new(name: &'static str, run: impl FnMut(usize) + 'a) -> Self {
        Self { name, run: Box::new(run), nanos: Vec::new() }
    }

    fn round(&mut self) {
        let started = Instant::now();
        (0..CALLS).for_each(&mut self.run);
        self.nanos.push(started.elapsed().as_nanos() as f64 / CALLS as f64);
    }

    fn median(&self) -> f64 {
        stats::median(self.nanos.clone())
    }

    fn least(&self) -> f64 {
        self.nanos.iter().copied().fold(f64::INFINITY, f64::min)
    }
}
