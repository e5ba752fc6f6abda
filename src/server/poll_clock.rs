//! Reads the clock once per poll of a connection's task.
//!
//! hyper notes at each HEADERS and DATA frame when it last heard from a peer, to know when to send a keepalive after
//! half a minute. Everything that is read in one poll arrived at the same time.

use std::{
    cell::Cell,
    pin::Pin,
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

use crate::ablation::{Mechanism, without};

thread_local! {
    /// The time of the current poll on this thread, once it has been read.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// tokio's timer, with a clock that stands still during a poll.
#[derive(Clone, Debug, Default)]
pub(crate) struct PollTimer(TokioTimer);

impl PollTimer {
    /// Begins a poll of a connection's task on this thread. Calls that run between polls see the time of the last: what
    /// they read had arrived by then.
    pub(super) fn begin_poll() {
        BEGAN.set(None);
    }
}

/// Returns the time of the current poll: for calls, the time at which they arrived.
pub(crate) fn now() -> Instant {
    PollTimer::default().now()
}

impl Timer for PollTimer {
    fn now(&self) -> Instant {
        if without(Mechanism::Turn) {
            return self.0.now();
        }
        let began = BEGAN.get().unwrap_or_else(|| self.0.now());
        BEGAN.set(Some(began));
        began
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.0.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.sleep_until(deadline)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        self.0.reset(sleep, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_still_during_a_poll_and_goes_on_at_the_next() {
        let timer = PollTimer::default();
        PollTimer::begin_poll();
        let began = timer.now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(timer.now(), began);
        PollTimer::begin_poll();
        assert!(timer.now() >= began + Duration::from_millis(2));
    }
}
