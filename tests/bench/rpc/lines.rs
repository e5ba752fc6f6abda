//! The lines of the table: a load, and what each round of it cost the server.

use std::time::Duration;

use super::{h2load::Target, stats::median};

/// What is done to a server.
#[derive(Clone, Copy)]
pub enum Load {
    /// h2load sends one request over and over, over so many connections.
    Unary(Target, usize),
    /// `VerifyTokens`, with so many checks each.
    Batches(usize),
    /// `StreamVerifyTokens`.
    Streams,
    /// Redis's GET, at this pipeline.
    Get(usize),
}

/// One load, measured in several rounds.
pub struct Line {
    pub name: String,
    pub load: Load,
    /// Requests, tokens or GETs in a round.
    pub count: usize,
    /// The server's microseconds for one of them, a round.
    micros: Vec<f64>,
    rates: Vec<f64>,
}

impl Line {
    pub fn new(name: impl Into<String>, load: Load, count: usize) -> Self {
        Self { name: name.into(), load, count, micros: Vec::new(), rates: Vec::new() }
    }

    /// Adds a round.
    pub fn add(&mut self, spent: Duration, rate: f64) {
        self.micros.push(spent.as_secs_f64() * 1e6 / self.count as f64);
        self.rates.push(rate);
    }

    /// The middle one of the rates a second.
    pub fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    /// The middle one of the rounds' own ratios: a slow moment weighs on both sides.
    pub fn ratio(&self, other: &Self) -> f64 {
        median(self.micros.iter().zip(&other.micros).map(|(own, other)| own / other).collect())
    }
}

/// Prints lines, each beside the one that it is compared with.
pub fn print(lines: &[Line], base: usize) {
    let base = &lines[base];
    println!("{:<34} {:>12} {:>12} {:>8}", "", "server CPU", "a second", "ratio");
    for line in lines {
        let micros = median(line.micros.clone());
        println!("{:<34} {micros:>9.3} us {:>12.0} {:>8.2}", line.name, line.rate(), line.ratio(base));
    }
}
