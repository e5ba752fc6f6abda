//! A private, real PostgreSQL, started from the machine's own server binaries: the database of `latchkey dev` and of
//! the tests.
//!
//! It listens on a free port of 127.0.0.1 only, keeps everything in one folder, drops to an unprivileged user when we
//! are root, and **stops whenever this process ends, however it ends** (see [`watchdog`](self)'s two small shells).
//! This module knows nothing of Latchkey's schema; it makes roles and empty databases.

pub mod binaries;
mod cluster;
mod error;
mod folder;
mod identity;
mod roles;
mod watchdog;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::binaries::{Binaries, Search};
use self::error::at;
use self::folder::Folder;
use self::identity::Identity;
use self::watchdog::{StopSignal, Watchdog, end_leftover};

pub use self::error::Error;
pub use self::roles::{APP_ROLE, DATABASE, OWNER_ROLE};

const SUPERUSER: &str = "postgres";
/// The superuser's password is kept as `superuser.password`.
const SUPERUSER_PASSWORD: &str = "superuser";
/// A fast shutdown writes a checkpoint, which takes its time on a slow disk.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// What the data is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As PostgreSQL's defaults: what is committed survives a crash.
    Durable,
    /// For tests: fast, and a crash of the machine may destroy the cluster.
    Throwaway,
}

/// How to start a [`PrivatePostgres`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds everything; made if it is not there.
    pub data_dir: PathBuf,
    /// What the data is worth.
    pub durability: Durability,
    /// Whether what was put into the folder (and the folder, if that leaves it empty) goes when PostgreSQL stops.
    pub remove_on_stop: bool,
    /// PostgreSQL's `max_connections`.
    pub max_connections: u16,
    /// More PostgreSQL settings, name and value. They show in the process list: no secrets.
    pub settings: Vec<(String, String)>,
    /// Where to look for the server binaries.
    pub search: Search,
}

/// A running private PostgreSQL. Dropping it stops it, waiting at most five seconds; [`PrivatePostgres::stop`] waits
/// until it has stopped and says if it did not.
pub struct PrivatePostgres {
    // Dropped in this order: the folder's lock goes last.
    watchdog: Watchdog,
    folder: Folder,
    binaries: Binaries,
    port: u16,
    superuser_password: String,
}

// === impl Options ===

impl Options {
    /// Durable, in `data_dir`, which stays: for `latchkey dev`.
    #[must_use]
    pub fn durable(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Durable,
            remove_on_stop: false,
            max_connections: 100,
            settings: Vec::new(),
            search: Search::this_machine(),
        }
    }

    /// Fast and gone with the process: for tests.
    #[must_use]
    pub fn throwaway(data_dir: impl Into<PathBuf>) -> Self {
        Self { durability: Durability::Throwaway, remove_on_stop: true, ..Self::durable(data_dir) }
    }
}

// === impl PrivatePostgres ===

impl PrivatePostgres {
    /// Starts PostgreSQL in `options.data_dir`, making the cluster on first use, and returns once it takes
    /// connections. Needs a multi-purpose tokio runtime (time and io).
    ///
    /// # Errors
    /// Binaries missing; the folder in use, unreachable or not writable; a cluster of a major version that is not
    /// installed; PostgreSQL's own refusal, with the end of its log. Whatever was started by then is stopped.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let installed = options.search.all()?;
        let folder = Folder::open(&options.data_dir).await?;
        let signal = match options.durability {
            Durability::Durable => StopSignal::Int,
            Durability::Throwaway => StopSignal::Quit,
        };
        let mut watchdog = Watchdog::new(&folder, signal, options.remove_on_stop)?;
        let identity = prepare(&folder).await?;
        let binaries = choose(installed, &folder)?;
        let superuser_password = Self::keep_superuser_password(&folder)?;
        cluster::ensure_cluster(&folder, &identity, &binaries, options.durability, &watchdog, &superuser_password)
            .await?;
        let port = cluster::run(&folder, &identity, &binaries, &options, &mut watchdog).await?;
        let started = Self { watchdog, folder, binaries, port, superuser_password };
        // The port may have been lost to another PostgreSQL in the meantime; the password tells them apart.
        started.superuser_connection("postgres").await?;
        Ok(started)
    }

    /// Stops PostgreSQL (and removes its folder if that was asked for), and waits until that is done.
    ///
    /// # Errors
    /// [`Error::StopTimeout`] if it takes longer than a minute; it may still come to its end by itself.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.watchdog.stop(STOP_WAIT).await
    }

    /// Whether PostgreSQL ended by itself (a crash, or somebody killed it). Never blocks.
    pub fn ended(&mut self) -> bool {
        self.watchdog.postgres_ended()
    }

    /// Its port on 127.0.0.1; another one at each start.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// PostgreSQL's major version.
    #[must_use]
    pub fn major(&self) -> u16 {
        self.binaries.major
    }

    /// The data folder, as an absolute path without links.
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

/// Makes the folder fit for PostgreSQL's user, and ends what an earlier run left running in it.
async fn prepare(folder: &Folder) -> Result<Identity, Error> {
    let home = folder.cluster_home();
    let identity = Identity::choose(&home)?;
    identity.let_into(folder.path())?;
    if folder.postmaster_pid().is_some() {
        if !end_leftover(folder).await? {
            let pid = folder.postmaster_pid().unwrap_or_default();
            return Err(Error::Orphan { folder: folder.path().to_owned(), pid });
        }
        folder.forget_stranger()?;
    }
    if !home.exists() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&home).map_err(at("create the folder", &home))?;
    }
    identity.give(&home)?;
    Ok(identity)
}

/// The preferred binaries, or, for a cluster that is there already, those of its version.
fn choose(mut installed: Vec<Binaries>, folder: &Folder) -> Result<Binaries, Error> {
    let Some(cluster) = folder.cluster_major()? else {
        return Ok(installed.swap_remove(0));
    };
    let newest = installed.iter().map(|binaries| binaries.major).max().unwrap_or_default();
    let fitting = installed.into_iter().find(|binaries| binaries.major.to_string() == cluster);
    let folder = folder.path().to_owned();
    fitting.ok_or(Error::MajorVersion { folder, cluster, installed: newest })
}
