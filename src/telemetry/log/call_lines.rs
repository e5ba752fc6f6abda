//! Bounds the lines of calls' ends: the access log.
//!
//! A client needs no credentials to have a call refused, and makes tens of thousands of such calls a second. Their
//! lines would cost the threads that serve more than the refusals do, and fill the disk. So before a call has a span,
//! it is decided whether its end is logged; without a line and without a trace, no span is made of it at all.
//!
//! How the call ends is not known by then. Therefore one line a second of each method is logged whatever other methods
//! do, beside those of all methods together; and a call that was left out and then fails by the server's fault gets a
//! line after all, one a second of each method. The methods of [`MethodTable::HOT`](crate::telemetry::MethodTable::HOT)
//! are not bounded: an operator who turns on their lines, of DEBUG, wants every one.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::telemetry::{
    methods::MethodLabel,
    metrics::{LeftOut, Metrics},
};

/// Bounds the methods that are distinguished, more than there are; further ones share.
const METHODS_MAX: usize = 64;

/// Remembers which calls' ends were logged lately, and counts what was left out.
#[derive(Debug)]
pub(crate) struct CallLines {
    /// 0: nothing is left out.
    per_second_max: u32,
    began: Instant,
    all: SecondWindow,
    methods: [MethodLines; METHODS_MAX],
    metrics: Arc<Metrics>,
    /// Of those that the metrics count as left out, how many were reported.
    reported: AtomicU64,
}

#[derive(Debug, Default)]
struct MethodLines {
    ends: SecondWindow,
    faults: SecondWindow,
}

/// Counts the lines of one second: the second in the upper half, the count in the lower. What is full is only read,
/// so that a flood has no two cores write to it.
#[derive(Debug, Default)]
struct SecondWindow(AtomicU64);

// === impl CallLines ===

impl CallLines {
    pub(crate) fn new(per_second_max: u32, began: Instant, metrics: Arc<Metrics>) -> Self {
        let methods = array::from_fn(|_| MethodLines::default());
        Self { per_second_max, began, all: SecondWindow::default(), methods, metrics, reported: AtomicU64::new(0) }
    }

    /// Reports whether a call that begins is to be logged as it ends. Looks at the clock only if there is a bound.
    pub(crate) fn takes(&self, label: MethodLabel, now: impl FnOnce() -> Instant) -> bool {
        if self.per_second_max == 0 {
            return true;
        }
        let second = self.second(now());
        self.of(label).ends.take(second, 1) || self.all.take(second, self.per_second_max)
    }

    /// Reports whether a call that was left out and ended by the server's fault is to be logged after all.
    pub(crate) fn takes_fault(&self, label: MethodLabel, now: Instant) -> bool {
        self.of(label).faults.take(self.second(now), 1)
    }

    /// Counts a line that was left out.
    pub(super) fn leave_out(&self) {
        self.metrics.log_lines_left_out(LeftOut::Calls, 1);
    }

    /// Returns how many were left out since this was last asked.
    pub(super) fn take_left_out(&self) -> u64 {
        let total = self.metrics.log_lines_left_out_count(LeftOut::Calls);
        total - self.reported.swap(total, Ordering::Relaxed).min(total)
    }

    fn of(&self, label: MethodLabel) -> &MethodLines {
        &self.methods[label.index % METHODS_MAX]
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }
}

// === impl SecondWindow ===

impl SecondWindow {
    /// Takes one of this many in a second. A second that is over, by the clock of another thread, counts as the latest.
    fn take(&self, second: u32, max: u32) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (latest, count) = ((packed >> 32) as u32, packed as u32);
            let (latest, count) = if second > latest { (second, 0) } else { (latest, count) };
            (count < max).then(|| u64::from(latest) << 32 | u64::from(count + 1))
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use http::HeaderMap;
    use serde_json::Value;
    use tonic::Code;

    use super::super::logs::captured::Captured;
    use super::*;
    use crate::settings::LogFormat;
    use crate::telemetry::{LogOptions, MethodTable, Otlp, build, clock, rpc::RpcObserver};

    const FLOOD: usize = 20_000;
    const FLOODED: &str = "a.B/Flooded";
    const OTHER: &str = "a.B/Other";
    const HOT: &str = MethodTable::HOT[0];

    /// Returns the one moment at which all calls arrive, so that it is one second whatever else the machine does.
    fn frozen() -> Instant {
        static MOMENT: OnceLock<Instant> = OnceLock::new();
        *MOMENT.get_or_init(clock::now)
    }

    struct Logged {
        lines: Vec<Value>,
        metrics: Arc<Metrics>,
    }

    impl Logged {
        fn count(&self, message: &str, method: &str) -> usize {
            let names = |line: &Value| line["rpc.method"] == method || line["span"]["rpc.method"] == method;
            self.lines.iter().filter(|line| line["message"] == message && names(line)).count()
        }

        /// Returns how many the log says were left out; the metric says the same.
        fn left_out(&self) -> u64 {
            let reports = self.lines.iter().filter(|line| line["message"] == "lines of calls that ended were left out");
            let said = reports.map(|line| line["left_out"].as_u64().unwrap()).sum();
            assert_eq!(self.metrics.log_lines_left_out_count(LeftOut::Calls), said);
            said
        }
    }

    /// Returns what is logged of these calls, each with its status.
    fn logged(filter: &str, per_second_max: u32, calls: impl IntoIterator<Item = (&'static str, Code)>) -> Logged {
        let (captured, metrics) = (Captured::default(), Arc::new(Metrics::new()));
        let options = captured.options(LogFormat::Json, filter);
        let options = LogOptions { calls_per_second_max: per_second_max, repeats_per_second_max: 5, ..options };
        let (dispatch, guard) = build(options, &Otlp::off(), &metrics).unwrap();
        let methods = Arc::new(MethodTable::new([FLOODED, OTHER, HOT]));
        let observer = Arc::new(RpcObserver::new(methods, metrics.clone(), frozen));
        tracing::dispatcher::with_default(&dispatch, || {
            for (method, code) in calls {
                observer.start(&format!("/{method}"), &HeaderMap::new()).finish(code);
            }
        });
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(guard.shutdown());
        let lines = captured.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Logged { lines, metrics }
    }

    fn flood(method: &'static str) -> impl Iterator<Item = (&'static str, Code)> {
        std::iter::repeat_n((method, Code::Unauthenticated), FLOOD)
    }

    #[test]
    fn a_flood_of_refused_calls_leaves_so_many_lines_and_the_others_are_counted() {
        let logged = logged("info", 50, flood(FLOODED));
        assert_eq!(logged.count("close", FLOODED), 1 + 50);
        assert_eq!(logged.left_out(), FLOOD as u64 - 51);
        assert_eq!(logged.lines.len(), 52, "one line says how many were left out");
    }

    #[test]
    fn a_flood_hides_no_other_method_and_no_fault() {
        let before = clock::now();
        let faults = std::iter::repeat_n((FLOODED, Code::Internal), FLOOD);
        let logged = logged("info", 50, flood(FLOODED).chain(faults).chain([(OTHER, Code::Ok), (OTHER, Code::Ok)]));
        assert_eq!(logged.count("close", OTHER), 1);
        let seconds = before.elapsed().as_secs() as usize + 1;
        let said = logged.count("a call failed whose line was left out", FLOODED);
        assert!((1..=seconds + 1).contains(&said), "{said} lines in {seconds} s");
        let line = logged.lines.iter().find(|line| line["rpc.response.status_code"] == "INTERNAL");
        assert!(line.is_some(), "its status is said");
        assert_eq!(logged.left_out(), 2 * FLOOD as u64 + 2 - 52);
    }

    #[test]
    fn what_was_asked_for_is_not_bounded() {
        let all = logged("info", 0, flood(FLOODED));
        assert_eq!((all.count("close", FLOODED), all.left_out()), (FLOOD, 0), "0 leaves none out");
        let all = logged("info,latchkey::rpc=debug", 50, flood(HOT));
        assert_eq!((all.count("close", HOT), all.left_out()), (FLOOD, 0), "verifications are asked for by name");
    }

    #[test]
    fn what_the_filter_does_not_let_pass_is_not_left_out() {
        for filter in ["warn", "info,latchkey::rpc=off"] {
            let logged = logged(filter, 50, flood(FLOODED));
            assert_eq!((logged.lines.len(), logged.left_out()), (0, 0), "{filter}");
        }
    }

    #[test]
    fn each_second_has_its_own_and_a_late_clock_takes_none_of_a_second_that_is_over() {
        let window = SecondWindow::default();
        let taken = |second| (0..10).filter(|_| window.take(second, 3)).count();
        assert_eq!([taken(0), taken(0), taken(2), taken(1), taken(3)], [3, 0, 3, 0, 3]);
    }
}
