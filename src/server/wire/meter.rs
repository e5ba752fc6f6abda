//! Detects floods of frames that carry no call.
//!
//! h2's own bounds cut an honest client at its twentieth cancelled call, and do not count other frames. Here each kind
//! of frame has a leaky bucket: its level holds a burst, and it leaks at the rate that a client may sustain.

use std::time::{Duration, Instant};

/// RST_STREAM frames that a client may send at once, and per second for any time. A proxy with the calls of many
/// clients stays far below; a client that opens calls only to reset them (CVE-2023-44487) exceeds it within a second.
pub(crate) const RESETS_BURST_MAX: u32 = 4_096;
const RESETS_PER_SECOND_MAX: u32 = 1_024;
/// The same for frames that carry no part of a call: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, and DATA that is empty or
/// nearly so. Clients acknowledge what they receive with some of these, so they may send one more for every
/// `WRITTEN_BYTES_PER_FRAME` that were written to them: two WINDOW_UPDATEs and a PING for a verification's answer.
const CONTROL_BURST_MAX: u32 = 10_000;
const CONTROL_PER_SECOND_MAX: u32 = 1_000;
const WRITTEN_BYTES_PER_FRAME: u64 = 32;
/// DATA below this size is smaller than any useful message. Each piece of it costs memory that flow control does not
/// count.
const DATA_BYTES_MIN: usize = 16;

/// The kind, flags and length in a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub length: usize,
}

/// A client sent more frames without a call than any honest client does.
#[derive(Debug, thiserror::Error)]
#[error("a flood of {0} frames")]
pub(crate) struct Flood(&'static str);

/// Counts the frames of a connection.
#[derive(Debug)]
pub(crate) struct FrameMeter {
    resets: LeakyBucket,
    control: LeakyBucket,
    written_bytes: u64,
}

#[derive(Debug)]
struct LeakyBucket {
    level: u32,
    burst_max: u32,
    per_second_max: u32,
    since: Instant,
}

// === impl Frame ===

impl Frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn carries_a_call(self) -> bool {
        match self.kind {
            // Padding carries nothing.
            Self::DATA => self.has(Self::END_STREAM) || self.length >= DATA_BYTES_MIN && !self.has(Self::PADDED),
            Self::CONTINUATION => self.length >= DATA_BYTES_MIN || self.has(Self::END_HEADERS),
            kind => kind == Self::HEADERS,
        }
    }
}

// === impl FrameMeter ===

impl FrameMeter {
    pub fn new(now: Instant) -> Self {
        Self {
            resets: LeakyBucket::new(RESETS_BURST_MAX, RESETS_PER_SECOND_MAX, now),
            control: LeakyBucket::new(CONTROL_BURST_MAX, CONTROL_PER_SECOND_MAX, now),
            written_bytes: 0,
        }
    }

    pub fn written(&mut self, bytes: usize) {
        self.written_bytes = self.written_bytes.saturating_add(bytes as u64);
    }

    /// Counts a frame. Reads the clock only for frames that count.
    pub fn count(&mut self, frame: Frame, now: impl FnOnce() -> Instant) -> Result<(), Flood> {
        if frame.carries_a_call() {
            return Ok(());
        }
        if frame.kind == Frame::RST_STREAM {
            return self.resets.fill(now()).ok_or(Flood("RST_STREAM"));
        }
        let earned = u32::try_from(self.written_bytes / WRITTEN_BYTES_PER_FRAME).unwrap_or(u32::MAX);
        self.written_bytes %= WRITTEN_BYTES_PER_FRAME;
        self.control.level = self.control.level.saturating_sub(earned);
        self.control.fill(now()).ok_or(Flood("control"))
    }
}

// === impl LeakyBucket ===

impl LeakyBucket {
    fn new(burst_max: u32, per_second_max: u32, since: Instant) -> Self {
        Self { level: 0, burst_max, per_second_max, since }
    }

    /// Adds one; `None` if the bucket overflows.
    fn fill(&mut self, now: Instant) -> Option<()> {
        let elapsed = now.saturating_duration_since(self.since).min(Duration::from_secs(60));
        let leaked = elapsed.as_micros() * u128::from(self.per_second_max) / 1_000_000;
        // A remainder too short to leak one is kept for the next time.
        if leaked > 0 {
            self.level = self.level.saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX));
            self.since = now;
        }
        self.level += 1;
        (self.level <= self.burst_max).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: Frame = Frame { kind: Frame::RST_STREAM, flags: 0, length: 4 };
    const WINDOW_UPDATE: Frame = Frame { kind: 8, flags: 0, length: 4 };

    #[expect(clippy::disallowed_methods, reason = "any time will do to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Returns how many frames of a kind are taken when `per_second` come each second.
    fn taken(frame: Frame, per_second: u32, seconds: u32) -> u32 {
        let start = start();
        let mut meter = FrameMeter::new(start);
        let at = |number: u32| start + Duration::from_secs(1) * number / per_second;
        (0..per_second * seconds).take_while(|number| meter.count(frame, || at(*number)).is_ok()).count() as u32
    }

    #[test]
    fn a_thousand_cancels_a_second_are_taken_for_ever_and_a_flood_is_not() {
        assert_eq!(taken(RESET, 1_000, 60), 60_000);
        assert!((4_096..10_000).contains(&taken(RESET, 10_000, 60)));
        assert!((4_096..4_200).contains(&taken(RESET, 1_000_000, 1)));
    }

    #[test]
    fn what_was_written_to_a_client_earns_it_control_frames() {
        assert!(taken(WINDOW_UPDATE, 100_000, 10) < 12_000);
        let now = start();
        let mut meter = FrameMeter::new(now);
        for _ in 0..1_000_000 {
            meter.written(64);
            meter.count(WINDOW_UPDATE, || now).unwrap();
            meter.count(WINDOW_UPDATE, || now).unwrap();
        }
    }

    #[test]
    fn frames_of_calls_do_not_count_and_those_that_carry_nothing_do() {
        let frame = |kind, flags, length| Frame { kind, flags, length };
        for free in [frame(0, 0, 100), frame(0, 1, 0), frame(1, 0, 10), frame(9, 4, 3), frame(9, 0, 4_000)] {
            assert_eq!(taken(free, 100_000, 1), 100_000, "{free:?}");
        }
        for counted in
            [frame(0, 0, 0), frame(0, 8, 200), frame(0, 0, 1), frame(2, 0, 5), frame(9, 0, 0), frame(77, 0, 9)]
        {
            assert!(taken(counted, 100_000, 1) < 12_000, "{counted:?}");
        }
    }
}
