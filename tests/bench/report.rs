//! What every benchmark prints: a table for people, `budget …` lines for programs.

/// Prints a measured value beside its limit. A benchmark goes on when one is over, so that one run shows all of them.
pub fn budget(name: &str, value: f64, limit: f64) {
    let verdict = if value <= limit { "ok" } else { "over" };
    println!("budget {name} {value:.2} {limit} {verdict}");
}

/// Whether `cargo bench` asked: `cargo test --benches` runs the program too, and asks for nothing.
pub fn asked() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
