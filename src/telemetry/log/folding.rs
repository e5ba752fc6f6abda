//! Folds log lines that repeat themselves.
//!
//! Of one place in the code with one message, a few lines a second are logged; how many more there were is said in one
//! line a second. A place whose messages differ is held to a few times as many in all. So no fault, however often it
//! strikes, writes more than a reader can take. Lines of DEBUG and TRACE are all logged: an operator who turns them on
//! wants every one. Lines of calls' ends are not folded: [`call_lines`](super::call_lines) bounds those.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level,
    callsite::Identifier,
    field::{Field, Visit},
};

/// The target of the lines that report what was left out: it passes every filter that passes the lines themselves.
pub(crate) const TARGET: &str = "latchkey::telemetry::folded";

const PERIOD: Duration = Duration::from_secs(1);
/// A place with many messages may log this many times as much as one message.
const MESSAGES_PER_SITE: u32 = 4;
/// Bounds the places and messages that are distinguished; further ones count for their place alone, or for the rest.
const KEYS_MAX: usize = 1_024;
/// At most this much of a message is quoted in the line that says how often it was left out.
const QUOTE_BYTES_MAX: usize = 200;

/// Remembers what was logged lately, and what was left out.
#[derive(Debug)]
pub(crate) struct Folding {
    /// 0: nothing is folded.
    per_second_max: u32,
    windows: Mutex<HashMap<Key, RepeatWindow>>,
}

/// What was left out of one message, or of one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOutLines {
    pub level: Level,
    /// The module that logs it.
    pub module: &'static str,
    pub line: u32,
    /// The first that was left out.
    pub message: String,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Message(Site, u64),
    Site(Site),
    /// All places for which there is no room.
    Rest,
}

/// A place in the code. Lines that a library logs by the `log` crate share one place, and say in fields where they are
/// from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Site(Identifier, u64);

#[derive(Debug)]
struct RepeatWindow {
    began: Instant,
    passed: u32,
    left_out: Option<LeftOutLines>,
}

/// Distinguishes a line from others, without keeping it.
struct Fingerprint {
    message: Hashed,
    origin: Hashed,
}

#[derive(Default)]
struct Hashed(DefaultHasher);

/// A message, cut.
struct Quote(String);

// === impl Folding ===

impl Folding {
    pub(crate) fn new(per_second_max: u32) -> Self {
        Self { per_second_max, windows: Mutex::default() }
    }

    /// Reports whether a line is to be logged now.
    pub(super) fn passes(&self, event: &Event<'_>, now: Instant) -> bool {
        let level = *event.metadata().level();
        if self.per_second_max == 0 || level > Level::INFO || event.metadata().target() == TARGET {
            return true;
        }
        let mut fingerprint = Fingerprint { message: Hashed::default(), origin: Hashed::default() };
        event.record(&mut fingerprint);
        let site = Site(event.metadata().callsite(), fingerprint.origin.0.finish());
        let message = Key::Message(site.clone(), fingerprint.message.0.finish());
        let per_site_max = self.per_second_max.saturating_mul(MESSAGES_PER_SITE);
        // More lines at INFO may pass, which are no faults: each migration logs one, and there are several.
        let per_message_max = if level == Level::INFO { per_site_max } else { self.per_second_max };

        let mut windows = self.windows();
        let site = if has_room(&windows, &Key::Site(site.clone())) { Key::Site(site) } else { Key::Rest };
        for (key, max) in [(&message, per_message_max), (&site, per_site_max)] {
            if let Some(window) = windows.get_mut(key)
                && !window.has_room(now, max)
            {
                window.leave_out(event);
                return false;
            }
        }
        // Without room for the message, the place counts for it.
        for key in [site, message] {
            if key == Key::Rest || has_room(&windows, &key) {
                windows.entry(key).or_insert_with(|| RepeatWindow::new(now)).passed += 1;
            }
        }
        true
    }

    /// Takes what was left out, of everything whose second is over, or of all; and forgets what is quiet.
    pub(super) fn take_left_out(&self, now: Instant, all: bool) -> Vec<LeftOutLines> {
        let mut left_out = Vec::new();
        self.windows().retain(|_, window| {
            if !all && now.saturating_duration_since(window.began) < PERIOD {
                return true;
            }
            left_out.extend(window.left_out.take());
            now.saturating_duration_since(window.began) < PERIOD
        });
        left_out
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Key, RepeatWindow>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_room(windows: &HashMap<Key, RepeatWindow>, key: &Key) -> bool {
    windows.len() < KEYS_MAX || windows.contains_key(key)
}

// === impl RepeatWindow ===

impl RepeatWindow {
    fn new(now: Instant) -> Self {
        Self { began: now, passed: 0, left_out: None }
    }

    fn has_room(&mut self, now: Instant, max: u32) -> bool {
        if now.saturating_duration_since(self.began) >= PERIOD {
            (self.began, self.passed) = (now, 0);
        }
        self.passed < max
    }

    fn leave_out(&mut self, event: &Event<'_>) {
        let metadata = event.metadata();
        let first = || {
            let mut quote = Quote(String::new());
            event.record(&mut quote);
            LeftOutLines {
                level: *metadata.level(),
                module: metadata.module_path().unwrap_or_else(|| metadata.target()),
                line: metadata.line().unwrap_or(0),
                message: quote.0,
                count: 0,
            }
        };
        self.left_out.get_or_insert_with(first).count += 1;
    }
}

// === impl Fingerprint ===

impl Visit for Fingerprint {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let hashed = match field.name() {
            "message" => &mut self.message,
            "log.target" | "log.module_path" | "log.file" | "log.line" => &mut self.origin,
            _ => return,
        };
        // Hashing cannot fail, and a value that cannot be formatted has no more to tell.
        let _ = write!(hashed, "{value:?}");
    }
}

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

// === impl Quote ===

impl Visit for Quote {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // It ends where there is no more room.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl Write for Quote {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = QUOTE_BYTES_MAX - self.0.len();
        let cut = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..cut]);
        if cut < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::logs::captured::Captured;
    use crate::settings::LogFormat;
    use crate::telemetry::clock::now;
    use crate::telemetry::{LeftOut, LogOptions, Metrics, Otlp, build};

    /// Everything as JSON, with so many repeats a second, and what was left out at the end.
    fn folded(repeats_per_second_max: u32, log: impl FnOnce()) -> (Vec<serde_json::Value>, Arc<Metrics>) {
        let (captured, metrics) = (Captured::default(), Arc::new(Metrics::new()));
        let options = LogOptions { repeats_per_second_max, ..captured.options(LogFormat::Json, "trace") };
        let (dispatch, guard) = build(options, &Otlp::off(), &metrics).unwrap();
        tracing::dispatcher::with_default(&dispatch, log);
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(guard.shutdown());
        (captured.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect(), metrics)
    }

    fn count(lines: &[serde_json::Value], message: &str) -> usize {
        lines.iter().filter(|line| line["message"] == message).count()
    }

    #[test]
    fn what_repeats_itself_is_folded_into_a_count() {
        const FLOOD: u64 = 20_000;
        let before = now();
        let (lines, metrics) = folded(5, || {
            for number in 0..FLOOD {
                tracing::warn!(number, "the same");
                if number % 5_000 == 0 {
                    tracing::error!("seldom");
                }
            }
        });
        let seconds = before.elapsed().as_secs() as usize + 1;
        let logged = count(&lines, "the same");
        assert!((5..=5 * seconds).contains(&logged), "{logged} lines in {seconds} s");
        assert_eq!(count(&lines, "seldom"), 4, "what is not repeated is all there");
        let reports: Vec<_> = lines.iter().filter(|line| line["of"] == "the same").collect();
        assert!((1..=seconds).contains(&reports.len()) && reports.iter().all(|line| line["level"] == "WARN"));
        let counted: u64 = reports.iter().map(|line| line["left_out"].as_u64().unwrap()).sum();
        assert_eq!(counted + logged as u64, FLOOD);
        assert_eq!(metrics.log_lines_left_out_count(LeftOut::Repeated), counted);
    }

    #[test]
    fn a_place_whose_messages_differ_is_bounded_too() {
        let before = now();
        let (lines, _) = folded(5, || (0..20_000).for_each(|number| tracing::error!("failure {number}")));
        let seconds = before.elapsed().as_secs() as usize + 1;
        let logged = lines.iter().filter(|line| line.get("of").is_none()).count();
        assert!((20..=20 * seconds).contains(&logged), "{logged} lines in {seconds} s");
    }

    #[test]
    fn what_the_filter_asks_for_is_not_folded() {
        let all = |lines: &[serde_json::Value]| lines.len() == 300;
        let span = || drop(tracing::info_span!("call").entered());
        assert!(all(&folded(5, || (0..300).for_each(|_| tracing::debug!("detail"))).0));
        assert!(all(&folded(5, || (0..300).for_each(|_| span())).0), "a line tells of each call's end");
        assert!(all(&folded(0, || (0..300).for_each(|_| tracing::warn!("all"))).0));
    }
}
