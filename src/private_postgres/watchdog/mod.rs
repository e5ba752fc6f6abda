//! Makes sure that PostgreSQL stops, and a throwaway folder is removed, even if this process is killed with SIGKILL.
//!
//! Two small shells outlive us for a moment. The *guard* runs as PostgreSQL's user, is its parent, and stops it when
//! the pipe from us (the lifeline) closes. The *janitor* runs as our user, waits for the guard to be gone, and then may
//! remove the folder; it also holds the folder's lock until then, so that the next start cannot come too early. The
//! kernel closes our ends of the pipes however we end; std opens them close-on-exec, so no other child of ours has
//! them.

use std::fs::File;
use std::io::{PipeWriter, pipe};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::PrivatePostgresError;
use super::folder::Folder;
use super::run_as::RunAs;

const GUARD: &str = include_str!("guard.sh");
const JANITOR: &str = include_str!("janitor.sh");
const SHELL: &str = "/bin/sh";
/// The janitor's exit status for a postmaster that would not stop.
const WOULD_NOT_STOP: i32 = 3;
const POLL: Duration = Duration::from_millis(10);

/// Selects how PostgreSQL is stopped: `INT` ends sessions and writes a checkpoint, `QUIT` exits at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum StopSignal {
    Int,
    Quit,
}

/// Runs the guard and the janitor of one data folder.
pub(super) struct Watchdog {
    /// While any copy of this is open, the janitor waits.
    hold: Option<PipeWriter>,
    /// While this is open, the guard lets PostgreSQL run.
    lifeline: Option<PipeWriter>,
    guard: Option<Child>,
    janitor: Child,
    signal: StopSignal,
    data_dir: PathBuf,
}

// === impl StopSignal ===

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Quit => "QUIT",
        }
    }
}

// === impl Watchdog ===

impl Watchdog {
    /// Starts the janitor, which looks after the folder from here on, however this process ends.
    pub(super) fn new(folder: &Folder, signal: StopSignal, remove: bool) -> Result<Self, PrivatePostgresError> {
        let (reader, hold) = pipe().map_err(spawn_error)?;
        let lock = folder.lock_file().map_err(spawn_error)?;
        let janitor = janitor(folder.path(), signal, remove, reader.into(), lock.into()).spawn();
        Ok(Self {
            hold: Some(hold),
            lifeline: None,
            guard: None,
            janitor: janitor.map_err(spawn_error)?,
            signal,
            data_dir: folder.path().to_owned(),
        })
    }

    /// Duplicates a pipe for `initdb` to hold open, so that the janitor waits for it too.
    pub(super) fn hold(&self) -> Result<Stdio, PrivatePostgresError> {
        let hold = self.hold.as_ref().expect("only stopping drops it");
        Ok(hold.try_clone().map_err(spawn_error)?.into())
    }

    /// Starts PostgreSQL under a guard; an earlier guard must have exited.
    pub(super) fn start(
        &mut self,
        run_as: &RunAs,
        postgres: &Path,
        arguments: &[String],
        log: File,
    ) -> Result<(), PrivatePostgresError> {
        let (reader, lifeline) = pipe().map_err(spawn_error)?;
        let mut command = run_as.command(Path::new(SHELL));
        command.arg("-c").arg(GUARD).arg("latchkey-guard").arg(postgres).arg(self.signal.name()).args(arguments);
        command.stdin(reader).stdout(self.hold()?).stderr(log).process_group(0);
        self.guard = Some(command.spawn().map_err(spawn_error)?);
        self.lifeline = Some(lifeline);
        Ok(())
    }

    /// Reports whether PostgreSQL, and so its guard, has exited by itself. Never blocks.
    pub(super) fn postgres_ended(&mut self) -> bool {
        self.guard.as_mut().is_none_or(ended)
    }

    /// Closes our ends of the pipes, which makes the guard stop PostgreSQL. Never blocks.
    fn release(&mut self) {
        self.lifeline = None;
        self.hold = None;
    }

    fn gone(&mut self) -> bool {
        self.postgres_ended() && ended(&mut self.janitor)
    }

    /// Stops PostgreSQL and waits, up to `limit`, until it and what cleans up after it are gone.
    pub(super) async fn stop(&mut self, limit: Duration) -> Result<(), PrivatePostgresError> {
        self.release();
        let waited = tokio::time::timeout(limit, async {
            while !self.gone() {
                tokio::time::sleep(POLL).await;
            }
        });
        if waited.await.is_err() {
            return Err(PrivatePostgresError::StopTimeout { folder: self.data_dir.clone(), seconds: limit.as_secs() });
        }
        match self.janitor.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(PrivatePostgresError::StopTimeout { folder: self.data_dir.clone(), seconds: limit.as_secs() }),
        }
    }
}

impl Drop for Watchdog {
    /// Gives PostgreSQL up to five seconds; after that the two shells finish the work alone.
    fn drop(&mut self) {
        self.release();
        for _ in 0..500 {
            if self.gone() {
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Stops a postmaster that an earlier run left on this folder, if there is one. `false`: it did not stop.
pub(super) async fn end_leftover(folder: &Folder) -> Result<bool, PrivatePostgresError> {
    let command = janitor(folder.path(), StopSignal::Int, false, Stdio::null(), Stdio::null());
    let status = tokio::process::Command::from(command).status().await.map_err(spawn_error)?;
    Ok(status.code() != Some(WOULD_NOT_STOP))
}

fn janitor(data_dir: &Path, signal: StopSignal, remove: bool, stdin: Stdio, stdout: Stdio) -> Command {
    let mut command = Command::new(SHELL);
    command.arg("-c").arg(JANITOR).arg("latchkey-janitor").arg(data_dir).arg(signal.name());
    command.arg(if remove { "yes" } else { "no" });
    // Its own process group, so that Ctrl-C reaches us first; a current folder that cannot vanish under it.
    command.stdin(stdin).stdout(stdout).stderr(Stdio::null()).process_group(0).current_dir("/");
    command
}

fn ended(child: &mut Child) -> bool {
    // An error means that there is no such child any more.
    !matches!(child.try_wait(), Ok(None))
}

fn spawn_error(source: std::io::Error) -> PrivatePostgresError {
    PrivatePostgresError::Spawn { program: PathBuf::from(SHELL), source }
}
