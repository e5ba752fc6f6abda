//! The one source of what is random in tests: all that it gives follows from a seed, and a test that fails says which.

/// Repeats a run: `LATCHKEY_TEST_SEED=… cargo test --test crash`.
const SEED: &str = "LATCHKEY_TEST_SEED";

/// Numbers that look random and are the same for a seed. Dropped by a panic, it prints the seed.
///
/// The seeds of the simulation stand for histories: a change to this generator changes them all.
#[derive(Debug)]
pub struct Random {
    seed: u64,
    state: u64,
    /// A fork follows from its origin, which names the seed.
    is_fork: bool,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03, is_fork: false }
    }

    /// From the seed that the environment names, or else from a fresh one.
    pub fn from_environment() -> Self {
        let named = std::env::var(SEED).ok().map(|seed| seed.parse().expect("LATCHKEY_TEST_SEED is a number"));
        let seed = named.unwrap_or_else(|| u64::from_le_bytes(fresh_bytes()));
        println!("{SEED}={seed}");
        Self::new(seed)
    }

    /// A source of one's own, which does not change what this one gives next.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let seed = self.below(1 << 30) as u64;
        Self { is_fork: true, ..Self::new(seed) }
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % bound
    }

    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Each of them, or not.
    pub fn some<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> Vec<&'a T> {
        of.iter().filter(|_| self.below(2) == 0).copied().collect()
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_fork {
            eprintln!("what was random followed from seed {}", self.seed);
        }
    }
}

/// Bytes that no other run has: for secrets and for seeds.
pub fn fresh_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}
