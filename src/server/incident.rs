//! Logs a repeated failure twice: when it begins and when it has ended, however often it occurs.

use std::time::Duration;

use tokio::time::Instant;

/// An incident has ended when it has not occurred for this long.
pub(super) const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// Counts the occurrences of a repeated failure.
#[derive(Debug, Default)]
pub(super) struct Incident {
    count: u64,
    last: Option<Instant>,
}

impl Incident {
    /// Records an occurrence; returns whether it is the first of an incident.
    pub(super) fn record(&mut self, now: Instant) -> bool {
        self.count += 1;
        self.last.replace(now).is_none()
    }

    /// Returns the number of occurrences once the incident has ended.
    pub(super) fn ended(&mut self, now: Instant) -> Option<u64> {
        self.last.filter(|last| now.saturating_duration_since(*last) >= QUIET_PERIOD)?;
        self.last = None;
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_and_ends_once_however_often_it_happens() {
        let (mut incident, mut now) = (Incident::default(), Instant::now());
        for _ in 0..2 {
            assert!(incident.record(now));
            for _ in 0..9 {
                now += QUIET_PERIOD / 2;
                assert!(!incident.record(now));
                assert_eq!(incident.ended(now), None);
            }
            now += QUIET_PERIOD;
            assert_eq!((incident.ended(now), incident.ended(now)), (Some(10), None));
        }
    }
}
