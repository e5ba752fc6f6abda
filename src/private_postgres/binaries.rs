//! Finds the machine's own PostgreSQL server binaries.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PrivatePostgresError;
use super::version::{MAJOR_MAX, MAJOR_MIN, parse_major};

/// Locates the server binaries of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder that holds `initdb` and `postgres`.
    pub folder: PathBuf,
    /// Major version, one of those that will do.
    pub major: u16,
}

/// Says where to look for binaries; only tests look elsewhere than [`Search::this_machine`].
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// `LATCHKEY_POSTGRES_BIN`: if given, nothing else is searched.
    pub explicit: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// Folders where packages put the binaries, in order of preference.
    pub layouts: Vec<PathBuf>,
}

/// Finds the binaries to start a new cluster with: those of `LATCHKEY_POSTGRES_BIN`, else of `PATH`, else the newest
/// that a Debian or Homebrew package installed.
///
/// # Errors
/// [`PrivatePostgresError::BinariesMissing`] says what to install; [`PrivatePostgresError::BinariesUnusable`] what is
/// wrong with `LATCHKEY_POSTGRES_BIN`.
pub fn find() -> Result<Binaries, PrivatePostgresError> {
    Search::this_machine().all().map(|mut all| all.swap_remove(0))
}

// === impl Binaries ===

impl Binaries {
    /// Returns the path of one of the binaries.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Checks one folder: `None` if it holds no server, `Some(Err(why))` if it holds one that cannot be used.
    fn probe(folder: &Path) -> Option<Result<Self, String>> {
        let postgres = folder.join("postgres");
        if !postgres.is_file() {
            return None;
        }
        if !folder.join("initdb").is_file() {
            return Some(Err("it contains postgres but no initdb".to_owned()));
        }
        let output = Command::new(&postgres).arg("--version").stdin(Stdio::null()).output();
        let text = match output {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Ok(output) => return Some(Err(format!("postgres --version failed ({})", output.status))),
            Err(_) => return Some(Err("its postgres cannot be executed".to_owned())),
        };
        Some(match parse_major(&text) {
            Some(major) if (MAJOR_MIN..=MAJOR_MAX).contains(&major) => Ok(Self { folder: folder.to_owned(), major }),
            Some(_) => Err(format!("{text} is not a version from {MAJOR_MIN} to {MAJOR_MAX}")),
            None => Err(format!("cannot parse its version: {text}")),
        })
    }
}

// === impl Search ===

impl Search {
    /// Searches `LATCHKEY_POSTGRES_BIN`, `PATH`, and the layouts of Debian's and Homebrew's packages, newest first.
    #[must_use]
    pub fn this_machine() -> Self {
        let mut layouts = Vec::new();
        for major in (MAJOR_MIN..=MAJOR_MAX).rev() {
            layouts.push(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
            layouts.push(PathBuf::from(format!("/opt/homebrew/opt/postgresql@{major}/bin")));
            layouts.push(PathBuf::from(format!("/usr/local/opt/postgresql@{major}/bin")));
        }
        layouts.push(PathBuf::from("/opt/homebrew/opt/postgresql/bin"));
        layouts.push(PathBuf::from("/usr/local/opt/postgresql/bin"));
        Self {
            explicit: std::env::var_os("LATCHKEY_POSTGRES_BIN").filter(|value| !value.is_empty()).map(PathBuf::from),
            path: std::env::var_os("PATH"),
            layouts,
        }
    }

    /// Lists every usable installation, the preferred one first; never empty.
    ///
    /// # Errors
    /// As [`find`].
    pub fn all(&self) -> Result<Vec<Binaries>, PrivatePostgresError> {
        if let Some(folder) = &self.explicit {
            let probed = Binaries::probe(folder).unwrap_or_else(|| Err("it contains no postgres".to_owned()));
            return match probed {
                Ok(binaries) => Ok(vec![binaries]),
                Err(why) => Err(PrivatePostgresError::BinariesUnusable { folder: folder.clone(), why }),
            };
        }
        let on_path = self.path.iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
        let (mut found, mut refused, mut seen) = (Vec::new(), String::new(), HashSet::new());
        for folder in on_path.chain(self.layouts.iter().cloned()) {
            if !seen.insert(folder.clone()) {
                continue;
            }
            match Binaries::probe(&folder) {
                Some(Ok(binaries)) => found.push(binaries),
                Some(Err(why)) => refused.push_str(&format!("; not used: {} ({why})", folder.display())),
                None => {}
            }
        }
        if found.is_empty() { Err(PrivatePostgresError::BinariesMissing { refused }) } else { Ok(found) }
    }
}
