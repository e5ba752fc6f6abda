//! Mechanisms that the ablation benchmark measures the server without; compiled only with the feature `ablation`.
//!
//! Without the feature every question here is a constant `false`, and nothing of this is in the program.

/// A mechanism that makes a verification faster, and nothing else of it different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Calls polled by their connection's task: without it, each is a task.
    Arrived,
    /// The one slot that a bucket's salt gives an entry: without it, slots are probed one after the other.
    Salts,
    /// Prefetching an entry before it is read.
    Prefetch,
    /// Requirements of a message that were read before: without it, each is read anew.
    RequirementMemo,
}

/// True if the process is to do without it, at this moment.
#[cfg(feature = "ablation")]
#[inline]
pub(crate) fn without(mechanism: Mechanism) -> bool {
    chosen::WITHOUT.load(std::sync::atomic::Ordering::Relaxed) & chosen::bit(mechanism) != 0
}

/// Never: this build has all of them.
#[cfg(not(feature = "ablation"))]
#[inline(always)]
pub(crate) const fn without(_mechanism: Mechanism) -> bool {
    false
}

#[cfg(feature = "ablation")]
mod chosen {
    use std::{
        sync::{
            LazyLock,
            atomic::{AtomicU8, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::Mechanism;

    /// How often the choice is read again.
    const PERIOD: Duration = Duration::from_millis(10);

    /// Names a file with the mechanisms to do without, separated by commas.
    const VARIABLE: &str = "LATCHKEY_BENCH_WITHOUT";

    /// A bit for each that is chosen. One process goes with and without, so that its memory is the same both times.
    pub static WITHOUT: LazyLock<AtomicU8> = LazyLock::new(|| {
        let Some(file) = std::env::var_os(VARIABLE) else { return AtomicU8::new(0) };
        let read = move || std::fs::read_to_string(&file).map(|names| bits(&names)).unwrap_or(0);
        let first = read();
        thread::spawn(move || {
            loop {
                thread::sleep(PERIOD);
                // Where entries stand is decided when the first comes.
                let salts = bit(Mechanism::Salts);
                WITHOUT.store(read() & !salts | first & salts, Ordering::Relaxed);
            }
        });
        AtomicU8::new(first)
    });

    pub fn bit(mechanism: Mechanism) -> u8 {
        1 << mechanism as u8
    }

    fn bits(names: &str) -> u8 {
        names.trim().split(',').filter(|name| !name.is_empty()).map(|name| bit(named(name))).sum()
    }

    fn named(name: &str) -> Mechanism {
        match name {
            "arrived" => Mechanism::Arrived,
            "salts" => Mechanism::Salts,
            "prefetch" => Mechanism::Prefetch,
            "requirement-memo" => Mechanism::RequirementMemo,
            other => panic!("there is no mechanism {other}"),
        }
    }
}
