//! Describes what can go wrong with a private PostgreSQL, for the person who ran `latchkey dev`.
//!
//! `Display` never prints its source, nor a password: the code that reports the error walks the chain once.

use std::io;
use std::path::{Path, PathBuf};

use super::version::{MAJOR_MAX, MAJOR_MIN};

/// Says why a private PostgreSQL could not be found, started, used or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivatePostgresError {
    /// No usable server binaries on this machine.
    #[error(
        "no PostgreSQL server ({MAJOR_MIN} to {MAJOR_MAX}) was found on this machine{refused}\n\
         Install one:\n\
         \x20 Debian, Ubuntu: apt-get install postgresql\n\
         \x20 macOS:          brew install postgresql@{MAJOR_MAX}\n\
         or set LATCHKEY_POSTGRES_BIN to the folder that contains initdb and postgres."
    )]
    BinariesMissing {
        /// What was found and refused, one `; `-led clause each; empty when nothing was.
        refused: String,
    },

    /// `LATCHKEY_POSTGRES_BIN` names something unusable.
    #[error(
        "LATCHKEY_POSTGRES_BIN is {}, which cannot be used: {why}; it must be the folder of a PostgreSQL server \
         ({MAJOR_MIN} to {MAJOR_MAX}) that contains initdb and postgres", folder.display()
    )]
    BinariesUnusable {
        /// The folder that was named.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// A file or folder could not be read, made or changed.
    #[error("cannot {doing} {}{}", path.display(), hint(source))]
    Folder {
        /// A verb phrase: `create`, `read`, …
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },

    /// PostgreSQL refuses to run as root, and the user it runs as instead cannot get to the data folder.
    #[error(
        "PostgreSQL runs as the user {user} (it refuses to run as root), and {user} cannot enter the folder {}; \
         choose a --data-dir whose parent folders every user may enter", folder.display()
    )]
    NotTraversable {
        /// The user PostgreSQL would run as.
        user: String,
        /// The first folder, from the root, that it cannot enter.
        folder: PathBuf,
    },

    /// Running as root, and there is no other user to run PostgreSQL as.
    #[error("PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor a user `nobody`")]
    NoUnprivilegedUser,

    /// Another process has a PostgreSQL on this folder.
    #[error(
        "the folder {} is in use by another running Latchkey (process {pid}); stop that process, or choose another \
         --data-dir", folder.display()
    )]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The holder's process id, or `unknown`.
        pid: String,
    },

    /// A PostgreSQL left over from an earlier run would not stop.
    #[error(
        "PostgreSQL from an earlier run (process {pid}) still uses the folder {} and does not stop; stop it and try \
         again", folder.display()
    )]
    Orphan {
        /// The data folder.
        folder: PathBuf,
        /// The postmaster's process id.
        pid: i32,
    },

    /// The cluster belongs to another major version.
    #[error(
        "the folder {} contains a PostgreSQL {cluster} cluster, but this machine has PostgreSQL {installed}; install \
         PostgreSQL {cluster}, or choose another --data-dir", folder.display()
    )]
    MajorVersion {
        /// The data folder.
        folder: PathBuf,
        /// What `PG_VERSION` says.
        cluster: String,
        /// The newest major version found here.
        installed: u16,
    },

    /// The cluster exists, but the file with its password is missing.
    #[error(
        "the folder {} contains a PostgreSQL cluster but its password file {} is missing; restore that file, or \
         delete the folder to start from scratch", folder.display(), file.display()
    )]
    PasswordLost {
        /// The data folder.
        folder: PathBuf,
        /// The missing file.
        file: PathBuf,
    },

    /// A program could not be started.
    #[error("cannot start {}{}", program.display(), hint(source))]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },

    /// `initdb` failed.
    #[error("initdb could not create a cluster in {}: {said}", folder.display())]
    Initdb {
        /// The data folder.
        folder: PathBuf,
        /// The last lines of what it printed.
        said: String,
    },

    /// PostgreSQL ended, or did not become ready in time.
    #[error("PostgreSQL did not start ({why}); the end of its log, {}:\n{tail}", log.display())]
    NotStarted {
        /// What was seen.
        why: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A connection to the running server failed.
    #[error("cannot connect to the private PostgreSQL as {role}")]
    Connect {
        /// The role.
        role: String,
        /// The driver's reason.
        #[source]
        source: diesel::ConnectionError,
    },

    /// A statement on the running server failed.
    #[error("cannot {doing} on the private PostgreSQL")]
    Sql {
        /// A verb phrase.
        doing: &'static str,
        /// The driver's reason.
        #[source]
        source: diesel::result::Error,
    },

    /// PostgreSQL was asked to stop and is not known to have stopped.
    #[error("the private PostgreSQL in {} did not stop within {seconds} s", folder.display())]
    StopTimeout {
        /// The data folder.
        folder: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Builds a `map_err` for file operations that records what was being done to which path.
pub(super) fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PrivatePostgresError + 'a {
    move |source| PrivatePostgresError::Folder { doing, path: path.to_owned(), source }
}

/// Explains the common reasons; the system's own text stays in the source chain.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => ": the disk is read-only; choose another --data-dir",
        io::ErrorKind::StorageFull => ": the disk is full",
        io::ErrorKind::PermissionDenied => ": permission denied; was it created by another user?",
        io::ErrorKind::NotFound => ": it does not exist",
        io::ErrorKind::NotADirectory => ": a part of the path is not a folder",
        _ => "",
    }
}
