//! A simulation over the real thing: `latchkey serve` processes on a real PostgreSQL, operations and faults
//! drawn from a seed, and an oracle for V1 to V6 after each of them.
//!
//! `LATCHKEY_SIM_SEEDS=N` asks for N seeds instead of a few, `LATCHKEY_SIM_FIRST_SEED=S` where to start.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail a test where they stand, as tests do")]

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

use std::{collections::BTreeMap, time::Instant};

use cluster::Postgres;
use runner::Report;

/// About two minutes.
const SEEDS: u64 = 8;
const LENGTH: usize = 40;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
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
        self.seeds += 1;
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

fn print_failure(name: &str, ops: &[op::Op], report: &Report) {
    println!("simulation FAILED {name} after operation {}:", report.operations);
    ops.iter().enumerate().for_each(|(place, op)| println!("  {:>3} {op:?}", place + 1));
    report.violations.iter().for_each(|violation| println!("  VIOLATION {violation}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_to_v6_hold_under_faults() {
    let mut postgres = Postgres::start().await;
    let mut sum = Sum::default();
    let first = number("LATCHKEY_SIM_FIRST_SEED", 1);
    let histories = (first..).take(number("LATCHKEY_SIM_SEEDS", SEEDS) as usize);
    let named = histories.map(|seed| (format!("seed {seed}"), seed, op::history(seed, LENGTH)));
    let reproductions = reproductions::all().into_iter().map(|(name, ops)| (name.to_owned(), 0, ops));
    for (name, seed, ops) in reproductions.chain(named) {
        let started = Instant::now();
        let report = runner::run(&mut postgres, seed, &ops, None).await;
        let took = started.elapsed();
        println!(
            "simulation {name}: {} operations, {} verifications in {took:?}",
            report.operations, report.verifications
        );
        if !report.violations.is_empty() {
            print_failure(&name, &ops, &report);
        }
        sum.add(&report);
    }
    sum.print();
    assert_eq!(sum.violations, 0, "see the seeds and operations above");
}
