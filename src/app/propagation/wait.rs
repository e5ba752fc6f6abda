//! How long an answer may wait for the other replicas.

use std::time::Duration;

use tokio::time::Instant;

/// What an answer needs to reach the caller before its deadline.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// How long a call waits for its mutation to reach every replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// When the caller gives up, if it said.
    pub deadline: Option<Instant>,
    /// The caller asked not to wait.
    pub skip: bool,
}

impl Wait {
    /// Waits for no other replica: no authority is taken away, or there is no replica to wait for.
    pub(crate) const NONE: Self = Self { deadline: None, skip: true };

    /// Returns when the call is to be answered, if its caller said when it gives up. In the past if that is sooner
    /// than an answer needs.
    pub(super) fn answer_by(self) -> Option<Instant> {
        self.deadline.map(|deadline| deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline))
    }

    /// Returns the moment `span` from now, or the moment at which the call is to be answered if that is sooner.
    pub(crate) fn at_most(self, span: Duration) -> Instant {
        let end = Instant::now() + span;
        self.answer_by().map_or(end, |answer_by| answer_by.min(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_due_before_its_caller_gives_up() {
        let now = Instant::now();
        let wait = Wait { deadline: Some(now + SECOND), skip: false };
        assert_eq!(wait.answer_by(), Some(now + SECOND - ANSWER_MARGIN));
        assert_eq!(wait.at_most(2 * SECOND), now + SECOND - ANSWER_MARGIN);
        assert!(wait.at_most(SECOND / 2) < now + SECOND - ANSWER_MARGIN);
        assert!(Wait::default().at_most(2 * SECOND) >= now + 2 * SECOND);
        // One that is nearer than an answer needs is not waited for at all.
        let near = Wait { deadline: Some(now + ANSWER_MARGIN / 5), skip: false };
        assert!(near.at_most(SECOND) < now);
    }
}
