//! What a verification is measured against, and how.

/// Places in an order that no prefetcher guesses.
pub struct Order {
    state: u64,
    count: usize,
}

impl Order {
    pub fn new(count: usize) -> Self {
        Self { state: 0x9E37_79B9_7F4A_7C15, count }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    /// Each place as likely as any other.
    pub fn uniform(&mut self) -> usize {
        (self.next() as usize) % self.count
    }

    /// The n-th place about 1/n as likely as the first (Zipf, s = 1).
    pub fn zipf(&mut self) -> usize {
        let unit = self.next() as f64 / (1u64 << 31) as f64;
        ((self.count as f64).powf(unit) as usize).clamp(1, self.count) - 1
    }
}

/// A walk through an array in which each load says where the next one is.
pub struct Chase {
    lines: Vec<[u32; 16]>,
}

impl Chase {
    /// Over so many bytes, one step a cache line, through all of them.
    pub fn new(bytes: usize) -> Self {
        let count = bytes / 64;
        let mut cycle: Vec<u32> = (0..count as u32).collect();
        let mut order = Order::new(count);
        // Sattolo: one cycle through everything.
        for place in (1..count).rev() {
            cycle.swap(place, order.next() as usize % place);
        }
        Self { lines: cycle.into_iter().map(|next| [next; 16]).collect() }
    }

    pub fn next(&self, at: u32) -> u32 {
        self.lines[at as usize][0]
    }
}

/// What this process has in memory.
pub fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    let kibibytes: usize = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kibibytes * 1_024
}

/// What this thread has had of a processor: time that others took is not in it.
pub fn cpu_nanos() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
