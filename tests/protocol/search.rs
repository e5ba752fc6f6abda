//! Breadth first over every state that the rules reach, so the first violation has the shortest way.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    rules::Rules,
    state::State,
    {database, replica},
};

/// A step, and whose it is.
pub type Step = (&'static str, usize);
/// What a step may lead to.
pub type Next = Vec<(Step, State)>;

/// What a search found.
pub struct Found {
    pub states: usize,
    /// The steps to the first violation of V1.
    pub violation: Option<Vec<Step>>,
}

/// Packed states are spread enough by one multiplication a half.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u128 is hashed");
    }
    fn write_u128(&mut self, value: u128) {
        let low = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let high = ((value >> 64) as u64 ^ low.rotate_left(29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = high ^ high >> 31;
    }
}

/// Explores until the first violation, or until nothing is left.
pub fn search(rules: &Rules) -> Found {
    let mut known = HashSet::<u128, BuildHasherDefault<Fold>>::default();
    // Each with the one that it was reached from, and how.
    let mut reached: Vec<(State, u32, Step)> = Vec::new();
    for state in database::starts(rules) {
        if known.insert(state.pack()) {
            reached.push((state, u32::MAX, ("start", 0)));
        }
    }
    let mut next = Next::new();
    let mut at = 0;
    while at < reached.len() {
        let state = reached[at].0;
        if replica::answers_valid(&state, rules) {
            return Found { states: known.len(), violation: Some(way(&reached, at)) };
        }
        database::steps(&state, rules, &mut next);
        replica::steps(&state, rules, &mut next);
        let from = u32::try_from(at).expect("fewer states than that fit into memory");
        for (step, state) in next.drain(..) {
            if known.insert(state.pack()) {
                reached.push((state, from, step));
            }
        }
        at += 1;
    }
    Found { states: known.len(), violation: None }
}

fn way(reached: &[(State, u32, Step)], mut at: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while reached[at].1 != u32::MAX {
        steps.push(reached[at].2);
        at = reached[at].1 as usize;
    }
    steps.reverse();
    steps
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violation {
            None => write!(f, "states={} violation=none", self.states),
            Some(steps) => {
                write!(f, "states={} violation={} steps:", self.states, steps.len())?;
                steps.iter().try_for_each(|(step, whose)| write!(f, " {step}({whose})"))
            }
        }
    }
}
