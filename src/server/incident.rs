//! Something that goes wrong many times over, logged when it begins and when it has ended: two lines, however often.

use std::time::Duration;

use tokio::time::Instant;

/// How long it must not have happened to have ended.
pub(super) const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// How often something has happened since it began.
#[derive(Debug, Default)]
pub(super) struct Incident {
    count: u64,
    last: Option<Instant>,
}

impl Incident {
    /// It happens; whether it begins with that.
    pub(super) fn record(&mut self, now: Instant) -> bool {
        self.count += 1;
        self.last.replace(now).is_none()
    }

    /// How often it has happened, once it has ended.
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
