//! Runs a private, real PostgreSQL from the machine's own server binaries: the database of `latchkey dev` and of the
//! tests.
//!
//! It listens on a free port of 127.0.0.1 only, keeps everything in one folder, drops to an unprivileged user when we
//! are root, and **stops whenever this process ends, however it ends** (`watchdog` says how).
//! This module knows nothing of Latchkey's schema; it makes roles and empty databases.

pub mod binaries;
mod cluster;
mod error;
mod folder;
mod options;
mod roles;
mod run_as;
mod version;
mod watchdog;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use self::binaries::Binaries;
use self::error::at;
use self::folder::Folder;
use self::run_as::RunAs;
use self::watchdog::{StopSignal, Watchdog, end_leftover};

pub use self::error::PrivatePostgresError;
pub use self::options::{Durability, Options};
pub use self::roles::{APP_ROLE, DATABASE, OWNER_ROLE};

/// A fast shutdown writes a checkpoint, which takes its time on a slow disk.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// Runs a private PostgreSQL. Dropping it stops it, waiting at most five seconds; [`PrivatePostgres::stop`] waits
/// until it has stopped and says if it did not.
pub struct PrivatePostgres {
    // Dropped in this order: the folder's lock goes last.
    watchdog: Watchdog,
    folder: Folder,
    binaries: Binaries,
    port: u16,
    superuser_password: String,
}

// === impl PrivatePostgres ===

impl PrivatePostgres {
    /// Starts PostgreSQL in `options.data_dir`, making the cluster on first use, and returns once it takes
    /// connections. Needs a multi-purpose tokio runtime (time and io).
    ///
    /// # Errors
    /// Binaries missing; the folder in use, unreachable or not writable; a cluster of a major version that is not
    /// installed; PostgreSQL's own refusal, with the end of its log. Whatever was started by then is stopped.
    pub async fn start(options: Options) -> Result<Self, PrivatePostgresError> {
        let installed = options.search.all()?;
        let folder = Folder::open(&options.data_dir).await?;
        let signal = match options.durability {
            Durability::Durable => StopSignal::Int,
            Durability::Throwaway => StopSignal::Quit,
        };
        let mut watchdog = Watchdog::new(&folder, signal, options.remove_on_stop)?;
        let run_as = prepare(&folder).await?;
        let binaries = choose(installed, &folder)?;
        let superuser_password = Self::keep_superuser_password(&folder)?;
        cluster::ensure_cluster(&folder, &run_as, &binaries, options.durability, &watchdog, &superuser_password)
            .await?;
        let port = cluster::run(&folder, &run_as, &binaries, &options, &mut watchdog).await?;
        let started = Self { watchdog, folder, binaries, port, superuser_password };
        // The port may have been lost to another PostgreSQL in the meantime; the password tells them apart.
        started.superuser_connection("postgres").await?;
        Ok(started)
    }

    /// Stops PostgreSQL, removes its folder if that was asked for, and waits until that is done.
    ///
    /// # Errors
    /// [`PrivatePostgresError::StopTimeout`] if it takes longer than a minute; it may still come to its end by itself.
    pub async fn stop(mut self) -> Result<(), PrivatePostgresError> {
        self.watchdog.stop(STOP_WAIT).await
    }

    /// Reports whether PostgreSQL exited by itself (it crashed or was killed). Never blocks.
    pub fn ended(&mut self) -> bool {
        self.watchdog.postgres_ended()
    }

    /// Returns its port on 127.0.0.1; another one at each start.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns PostgreSQL's major version.
    #[must_use]
    pub fn major(&self) -> u16 {
        self.binaries.major
    }

    /// Returns the data folder, as an absolute path without links.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }
}

impl fmt::Debug for PrivatePostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PrivatePostgres");
        shown.field("data_dir", &self.folder.path()).field("port", &self.port).field("binaries", &self.binaries);
        shown.finish_non_exhaustive()
    }
}

/// Prepares the folder for PostgreSQL's user, and stops what an earlier run left running in it.
async fn prepare(folder: &Folder) -> Result<RunAs, PrivatePostgresError> {
    let home = folder.cluster_home();
    let run_as = RunAs::choose(&home)?;
    run_as.let_into(folder.path())?;
    if folder.postmaster_pid().is_some() {
        if !end_leftover(folder).await? {
            let pid = folder.postmaster_pid().unwrap_or_default();
            return Err(PrivatePostgresError::Orphan { folder: folder.path().to_owned(), pid });
        }
        folder.remove_stale_pid()?;
    }
    if !home.exists() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&home).map_err(at("create the folder", &home))?;
    }
    run_as.give(&home)?;
    Ok(run_as)
}

/// Chooses the preferred binaries or, for an existing cluster, those of its version.
fn choose(mut installed: Vec<Binaries>, folder: &Folder) -> Result<Binaries, PrivatePostgresError> {
    let Some(cluster) = folder.cluster_major()? else {
        return Ok(installed.swap_remove(0));
    };
    let newest = installed.iter().map(|binaries| binaries.major).max().unwrap_or_default();
    let fitting = installed.into_iter().find(|binaries| binaries.major.to_string() == cluster);
    let folder = folder.path().to_owned();
    fitting.ok_or(PrivatePostgresError::MajorVersion { folder, cluster, installed: newest })
}
