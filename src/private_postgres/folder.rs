//! Manages the data folder: its lock, its layout, and the passwords kept in it.
//!
//! ```text
//! DATA_DIR/latchkey.lock          flock: one owner at a time; holds the owner's process id
//! DATA_DIR/*.password             0600, ours
//! DATA_DIR/postgres/              0700, PostgreSQL's user
//! DATA_DIR/postgres/data/         the cluster
//! DATA_DIR/postgres/postgres.log  this run's log; postgres.log.1 the last one's
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, test_kill_process};

use super::PrivatePostgresError;
use super::error::at;
use crate::entropy::random_hex;

/// How long to wait for the janitor of a killed owner to release the folder.
const LOCK_WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// Lines of PostgreSQL's log that an error shows.
const TAIL_LINES: usize = 8;

/// Holds a data folder locked.
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Folder {
    /// Creates the folder if needed and takes its lock. Waits for the janitor of an owner that was killed, but not for
    /// an owner that is alive.
    pub(super) async fn open(path: &Path) -> Result<Self, PrivatePostgresError> {
        let waiting = tokio::time::timeout(LOCK_WAIT, async {
            loop {
                // Each time: a janitor may remove the folder in between.
                DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create the folder", path))?;
                let lock_path = path.join("latchkey.lock");
                if let Some(lock) = try_lock(&lock_path)? {
                    return Ok(Self { path: path.canonicalize().map_err(at("find", path))?, lock });
                }
                let holder = std::fs::read_to_string(&lock_path).unwrap_or_default().trim().to_owned();
                if is_alive(&holder) {
                    return Err(PrivatePostgresError::InUse { folder: path.to_owned(), pid: holder });
                }
                tokio::time::sleep(POLL).await;
            }
        });
        let unknown = |_elapsed| PrivatePostgresError::InUse { folder: path.to_owned(), pid: "unknown".to_owned() };
        waiting.await.map_err(unknown)?
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Duplicates the lock for a child process: it is held until every copy is closed.
    pub(super) fn lock_file(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Returns the folder that belongs to PostgreSQL's user.
    pub(super) fn cluster_home(&self) -> PathBuf {
        self.path.join("postgres")
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.cluster_home().join("data")
    }

    fn log(&self) -> PathBuf {
        self.cluster_home().join("postgres.log")
    }

    /// Reads the cluster's major version; `None` if there is no cluster yet.
    pub(super) fn cluster_major(&self) -> Result<Option<String>, PrivatePostgresError> {
        let path = self.cluster().join("PG_VERSION");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// Reads the first line of `postmaster.pid`.
    pub(super) fn postmaster_pid(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Reports whether the postmaster reports that it takes connections (line 8 of `postmaster.pid`).
    pub(super) fn postmaster_ready(&self) -> bool {
        let text = std::fs::read_to_string(self.cluster().join("postmaster.pid")).unwrap_or_default();
        // A killed postmaster leaves its file behind, and in it that it was ready.
        let lives = text.lines().next().is_some_and(|pid| is_alive(pid.trim()));
        lives && text.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    /// Removes a stale `postmaster.pid` whose process id has been reused by another program, which PostgreSQL itself
    /// refuses to do. Call it only after the janitor has found that no postmaster of this cluster runs.
    pub(super) fn remove_stale_pid(&self) -> Result<(), PrivatePostgresError> {
        let path = self.cluster().join("postmaster.pid");
        match self.postmaster_pid() {
            Some(pid) if is_alive(&pid.to_string()) => std::fs::remove_file(&path).map_err(at("remove", &path)),
            _ => Ok(()),
        }
    }

    /// Moves the last run's log aside; there are never more than two.
    pub(super) fn rotate_log(&self) {
        // Without one there is nothing to keep, and a failure will show when the new one is opened.
        let _ = std::fs::rename(self.log(), self.log().with_extension("log.1"));
    }

    pub(super) fn open_log(&self) -> Result<File, PrivatePostgresError> {
        let path = self.log();
        // The folder belongs to PostgreSQL's user and we may be root: a link planted there must not be followed.
        let no_links = OFlags::NOFOLLOW.bits().cast_signed();
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(no_links).open(&path);
        opened.map_err(at("open", &path))
    }

    /// Returns the log's path and its last lines.
    pub(super) fn log_tail(&self) -> (PathBuf, String) {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log()) {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            // A failed seek or read leaves less to show; the path is shown all the same.
            let _ = file.seek(io::SeekFrom::Start(length.saturating_sub(4096)));
            let _ = file.read_to_end(&mut text);
        }
        (self.log(), last_lines(&String::from_utf8_lossy(&text)))
    }

    pub(super) fn password_path(&self, role: &str) -> PathBuf {
        self.path.join(format!("{role}.password"))
    }

    /// Returns a role's password: the one kept in the folder, or a new one, which is kept from now on.
    pub(super) fn password(&self, role: &str) -> Result<String, PrivatePostgresError> {
        let path = self.password_path(role);
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("read", &path)(error)),
        }
        let password = random_hex().to_string();
        // Written aside and renamed: a kill in between must not leave half a password.
        let aside = self.path.join(format!("{role}.new.password"));
        write_secret(&aside, &password)?;
        std::fs::rename(&aside, &path).map_err(at("create", &path))?;
        Ok(password)
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_secret(path: &Path, secret: &str) -> Result<(), PrivatePostgresError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("replace", path)(error)),
        _ => {}
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = written.and_then(|mut file| file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(at("write", path))
}

/// Returns the last few lines of a program's output.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn is_alive(pid: &str) -> bool {
    let Some(pid) = pid.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
        return false;
    };
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Takes the lock and writes our process id to it; `None` if another process holds it.
fn try_lock(path: &Path) -> Result<Option<File>, PrivatePostgresError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = match opened {
        Ok(file) => file,
        // The folder was there a moment ago: a janitor has just removed it. It will be made again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("open", path)(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(at("lock", path)(error.into())),
    }
    // A janitor may have removed the file between our open and our lock: then this lock guards nothing.
    let ours = file.metadata().map_err(at("read", path))?;
    match std::fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
        _ => return Ok(None),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(at("write", path))?;
    Ok(Some(file))
}
