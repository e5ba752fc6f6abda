//! The real program as a child process. Whatever becomes of the test, the child is killed; what it logs is kept
//! where `deploy/test` looks for secrets.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use super::logs;

static NEXT: AtomicU32 = AtomicU32::new(1);
const POLL: Duration = Duration::from_millis(5);

/// A running `latchkey`.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    stderr: PathBuf,
    /// Its standard error, if that is a pipe that no process reads.
    unread: Option<ChildStderr>,
    /// Kept while the process may write there, if no other process keeps it.
    _folder: Option<tempfile::TempDir>,
}

/// A `latchkey` that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// How to start a `latchkey`.
#[derive(Default)]
pub struct Start {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Whether its standard output legitimately holds a token.
    secret_stdout: bool,
    files_max: Option<u32>,
    /// Whether nobody reads its standard error, a pipe.
    unread_stderr: bool,
}

/// `latchkey` with these arguments, and an environment without settings but for logs as loud as can be.
pub fn latchkey<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Start {
    Start { arguments: arguments.into_iter().map(Into::into).collect(), ..Start::default() }
}

impl Start {
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Its standard output is not kept for the scan: it is where a token is meant to appear.
    pub fn secret_stdout(mut self) -> Self {
        self.secret_stdout = true;
        self
    }

    /// Its standard error is a pipe, which nobody reads before [`Process::read_stderr`].
    pub fn unread_stderr(mut self) -> Self {
        self.unread_stderr = true;
        self
    }

    /// It may have so many files open, and cannot raise that.
    pub fn files_max(mut self, files: u32) -> Self {
        self.files_max = Some(files);
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Process {
        let name = format!("child-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (folder, own) = match logs::folder() {
            Some(folder) => (folder, None),
            None => {
                let own = tempfile::tempdir().expect("a temporary folder");
                (own.path().to_owned(), Some(own))
            }
        };
        let stderr = folder.join(format!("{name}.stderr"));
        let program = env!("CARGO_BIN_EXE_latchkey");
        let mut command = match self.files_max {
            None => Command::new(program),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if (text.starts_with("LATCHKEY_") && text != "LATCHKEY_POSTGRES_BIN") || text.starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).env("LATCHKEY_LOG_FILTER", "trace").env("LATCHKEY_LOG_FORMAT", "json");
        command.env("LATCHKEY_LOG_CALLS_PER_SECOND_MAX", "0");
        command.envs(self.environment).stdin(Stdio::null()).stdout(Stdio::piped());
        let file = File::create(&stderr).expect("the log folder is writable");
        command.stderr(if self.unread_stderr { Stdio::piped() } else { file.into() });
        let mut child = command.spawn().expect("the program can be started");
        let unread = child.stderr.take();
        let kept = (!self.secret_stdout).then(|| folder.join(format!("{name}.stdout")));
        let lines = read_lines(child.stdout.take().expect("piped"), kept);
        Process { child, lines, stderr, unread, _folder: own }
    }

    /// Runs it to its end, which comes within the limit.
    pub fn run(self, limit: Duration) -> Ended {
        self.spawn().wait(limit)
    }
}

fn read_lines(stdout: impl std::io::Read + Send + 'static, kept: Option<PathBuf>) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut kept = kept.map(|path| File::create(path).expect("the log folder is writable"));
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(kept) = &mut kept {
                writeln!(kept, "{line}").expect("the log folder is writable");
            }
            // The test may have seen enough.
            let _ = sender.send(line);
        }
    });
    lines
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output.
    #[track_caller]
    pub fn line(&mut self, limit: Duration) -> String {
        match self.lines.recv_timeout(limit) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {limit:?}; stderr:\n{}", self.stderr()),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended; stderr:\n{}", self.stderr()),
        }
    }

    /// Reads the pipe of [`Start::unread_stderr`] from now on, to where [`Self::stderr`] looks.
    pub fn read_stderr(&mut self) {
        let mut pipe = self.unread.take().expect("nobody has read it yet");
        let mut kept = File::create(&self.stderr).expect("the log folder is writable");
        std::thread::spawn(move || std::io::copy(&mut pipe, &mut kept).expect("both stay"));
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits until it has logged a message, and gives that line.
    #[track_caller]
    pub fn logged(&mut self, message: &str, limit: Duration) -> serde_json::Value {
        let mut waited = Duration::ZERO;
        loop {
            for line in self.stderr().lines() {
                match serde_json::from_str::<serde_json::Value>(line) {
                    Ok(line) if line["message"] == message => return line,
                    _ => {}
                }
            }
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none() && waited < limit, "`{message}` was not logged ({ended:?}):\n{}", self.stderr());
            std::thread::sleep(POLL);
            waited += POLL;
        }
    }

    /// The address that `latchkey serve` says it serves on.
    #[track_caller]
    pub fn address(&mut self, limit: Duration) -> std::net::SocketAddr {
        self.logged("serving", limit)["address"].as_str().expect("a text").parse().expect("an address")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("not zero");
        kill_process(pid, signal).expect("our child, not waited for");
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits for its end, which comes within the limit.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ended {
        // If it is a pipe that no process reads, it stays one until the process has ended.
        let _unread = self.unread.take();
        let mut waited = Duration::ZERO;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(waited < limit, "it did not end within {limit:?}; stderr:\n{}", self.stderr());
            std::thread::sleep(POLL);
            waited += POLL;
        };
        let stdout: Vec<String> = self.lines.iter().collect();
        Ended { status, stdout: stdout.join("\n"), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Asserts that it succeeded, and gives its standard output.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts that it failed with a status (not by a signal), without a panic, and gives what a person reads on
    /// standard error: everything but log lines.
    #[track_caller]
    pub fn failure(self) -> String {
        assert!(self.status.code().is_some_and(|code| code != 0), "{}\n{}", self.status, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let text: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with('{')).collect();
        let text = text.join("\n");
        assert!(!text.trim().is_empty(), "it said nothing:\n{}", self.stderr);
        text
    }
}

/// A temporary folder that PostgreSQL's user may pass through.
pub fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().expect("a temporary folder");
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o711)).expect("ours");
    scratch
}

/// The command lines of all processes that name a folder.
pub fn processes_naming(folder: &std::path::Path) -> Vec<String> {
    let listed = Command::new("ps").args(["-A", "-ww", "-o", "pid=,stat=,args="]).output().expect("ps");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let name = folder.to_str().expect("Unicode");
    listed.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    while !holds() {
        assert!(waited < limit, "not within {limit:?}: {what}");
        std::thread::sleep(4 * POLL);
        waited += 4 * POLL;
    }
}
