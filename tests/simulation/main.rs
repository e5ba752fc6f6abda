//! A simulation over the real thing: `latchkey serve` processes on a real PostgreSQL, operations and faults
//! drawn from a seed, and an oracle for V1 to V6 after each of them.
//!
//! `LATCHKEY_SIM_SEEDS=N` asks for N seeds instead of a few, `LATCHKEY_SIM_FIRST_SEED=S` where to start,
//! `LATCHKEY_SIM_AT_ONCE=N` how many histories run side by side, each on a PostgreSQL of its own,
//! `LATCHKEY_SIM_TRACE=1` prints each operation with its time.
#![expect(clippy::disallowed_methods, reason = "other processes keep the real time, and the oracle asks when")]

#[path = "../support/mod.rs"]
mod support;

mod ask;
mod closing;
mod cluster;
mod model;
mod op;
#[cfg(feature = "planted-bugs")]
mod planted;
mod proxy;
mod reproductions;
mod runner;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use cluster::Postgres;
use op::Op;
use runner::Report;

/// About two minutes.
const SEEDS: u64 = 12;
const LENGTH: usize = 40;
/// Most of a history's time is spent waiting.
const AT_ONCE: u64 = 3;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

struct History {
    name: String,
    seed: u64,
    ops: Vec<Op>,
}

/// What all histories came to, printed at the end.
#[derive(Default)]
struct Sum {
    seeds: u64,
    operations: u64,
    verifications: u64,
    valid: u64,
    faults: BTreeMap<&'static str, u64>,
    violations: usize,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.operations += report.operations;
        self.verifications += report.verifications;
        self.valid += report.valid;
        self.violations += report.violations.len();
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn print(&self) {
        let kinds: Vec<_> = self.faults.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
        let faults: u64 = self.faults.values().sum();
        println!("simulation valid_answers={} faults by kind: {}", self.valid, kinds.join(" "));
        println!(
            "simulation seeds={} operations={} verifications={} faults={faults} violations={}",
            self.seeds, self.operations, self.verifications, self.violations
        );
    }
}

fn print_failure(history: &History, report: &Report) {
    println!("simulation FAILED {} after operation {}:", history.name, report.operations);
    history.ops.iter().enumerate().for_each(|(place, op)| println!("  {:>3} {op:?}", place + 1));
    report.violations.iter().for_each(|violation| println!("  VIOLATION {violation}"));
}

fn histories() -> VecDeque<History> {
    let first = number("LATCHKEY_SIM_FIRST_SEED", 1);
    let seeds = first..first + number("LATCHKEY_SIM_SEEDS", SEEDS);
    let named = seeds.map(|seed| History { name: format!("seed {seed}"), seed, ops: op::history(seed, LENGTH) });
    let reproduction = |(name, ops): (&str, _)| History { name: format!("reproduction: {name}"), seed: 0, ops };
    reproductions::all().into_iter().map(reproduction).chain(named).collect()
}

/// Runs histories until none is left.
async fn work(left: Arc<Mutex<VecDeque<History>>>, sum: Arc<Mutex<Sum>>) {
    let mut postgres = Postgres::start().await;
    loop {
        let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(history) = next else { return };
        let started = Instant::now();
        let report = runner::run(&mut postgres, history.seed, &history.ops, None).await;
        let (took, faults) = (started.elapsed().as_secs(), report.faults.values().sum::<u64>());
        println!(
            "simulation {}: {} operations, {faults} faults, {} verifications, {} violations, {took} s",
            history.name,
            report.operations,
            report.verifications,
            report.violations.len()
        );
        if !report.violations.is_empty() {
            print_failure(&history, &report);
        }
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.seeds += u64::from(history.seed > 0);
        sum.add(&report);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_to_v6_hold_under_faults() {
    let (left, sum) = (Arc::new(Mutex::new(histories())), Arc::<Mutex<Sum>>::default());
    let workers = (0..number("LATCHKEY_SIM_AT_ONCE", AT_ONCE)).map(|_| tokio::spawn(work(left.clone(), sum.clone())));
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("a worker does not panic");
    }
    let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    sum.print();
    assert_eq!(sum.violations, 0, "see the seeds and operations above");
}
