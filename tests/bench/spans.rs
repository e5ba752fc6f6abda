//! How long things took.

use std::time::Duration;

/// Milliseconds that `percent` of the spans do not exceed. Sorts them.
pub fn quantile_ms(spans: &mut [Duration], percent: usize) -> f64 {
    spans.sort_unstable();
    ms(spans[(spans.len() * percent).div_ceil(100).max(1) - 1])
}

pub fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
