//! What a process took from the processors, by the operating system's accounting.

use std::{collections::BTreeMap, fs, time::Duration};

/// A unit of `/proc/<pid>/stat`: `USER_HZ`, which Linux never changes.
const TICK: Duration = Duration::from_millis(10);
/// What is running now is accounted for once it waits again.
const SETTLING: Duration = Duration::from_millis(20);

/// A process's account at one moment.
pub struct Cpu {
    process: u32,
    /// Each thread's time, in nanoseconds.
    threads: BTreeMap<u32, u64>,
    /// All of them, those that ended included; coarse.
    ticks: u64,
}

impl Cpu {
    /// Now, or rather a moment later.
    pub fn of(process: u32) -> Self {
        std::thread::sleep(SETTLING);
        Self { process, threads: threads(process), ticks: ticks(process) }
    }

    /// What the process took since, in user and kernel mode. A thread that ended took its exact account with it: then
    /// the coarse one counts.
    pub fn spent(&self) -> Duration {
        let now = Self::of(self.process);
        if self.threads.keys().any(|thread| !now.threads.contains_key(thread)) {
            return TICK * u32::try_from(now.ticks - self.ticks).expect("minutes");
        }
        let since = |(thread, nanos): (&u32, &u64)| nanos - self.threads.get(thread).unwrap_or(&0);
        Duration::from_nanos(now.threads.iter().map(since).sum())
    }
}

fn threads(process: u32) -> BTreeMap<u32, u64> {
    let folder = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs, on Linux");
    let one = |entry: fs::DirEntry| {
        let thread = entry.file_name().to_str()?.parse().ok()?;
        // A thread may end while we look.
        let account = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        Some((thread, account.split_whitespace().next()?.parse().ok()?))
    };
    folder.filter_map(|entry| one(entry.ok()?)).collect()
}

fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs, on Linux");
    // The name, in brackets, may hold anything; after it the state is field 3, utime and stime are 14 and 15.
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().expect("a number")).sum()
}
