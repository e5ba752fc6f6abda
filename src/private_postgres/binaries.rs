//! Finds the machine's own PostgreSQL server binaries.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// Oldest major version that Latchkey's schema is tested on.
pub const MAJOR_MIN: u16 = 14;
/// Newest major version known to work.
pub const MAJOR_MAX: u16 = 18;

/// The server binaries of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder that holds `initdb` and `postgres`.
    pub folder: PathBuf,
    /// Major version, `MAJOR_MIN..=MAJOR_MAX`.
    pub major: u16,
}

/// Where to look. [`Search::this_machine`] is what everyone but a test wants.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// `LATCHKEY_POSTGRES_BIN`: when given, nothing else is looked at.
    pub explicit: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// Folders where packages put the binaries, in order of preference.
    pub layouts: Vec<PathBuf>,
}

/// The binaries to start a new cluster with: those of `LATCHKEY_POSTGRES_BIN`, else of `PATH`, else the newest
/// that a Debian or Homebrew package installed.
///
/// # Errors
/// [`Error::BinariesMissing`] says what to install; [`Error::BinariesUnusable`] what is wrong with
/// `LATCHKEY_POSTGRES_BIN`.
pub fn find() -> Result<Binaries, Error> {
    Search::this_machine().all().map(|mut all| all.swap_remove(0))
}

// === impl Binaries ===

impl Binaries {
    /// The path of one of the binaries.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Looks at one folder: `None` if it holds no server, `Some(Err(why))` if it holds one that cannot be used.
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
    /// `LATCHKEY_POSTGRES_BIN`, `PATH`, and the layouts of Debian's and Homebrew's packages, newest first.
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

    /// Every usable installation, the preferred one first; never empty.
    ///
    /// # Errors
    /// As [`find`].
    pub fn all(&self) -> Result<Vec<Binaries>, Error> {
        if let Some(folder) = &self.explicit {
            let probed = Binaries::probe(folder).unwrap_or_else(|| Err("it contains no postgres".to_owned()));
            return match probed {
                Ok(binaries) => Ok(vec![binaries]),
                Err(why) => Err(Error::BinariesUnusable { folder: folder.clone(), why }),
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
        if found.is_empty() { Err(Error::BinariesMissing { refused }) } else { Ok(found) }
    }
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`, `… 18beta1`, `… 17.0`.
fn parse_major(version: &str) -> Option<u16> {
    let number = version.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn versions_are_read_as_every_packager_prints_them() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(parse_major("something else"), None);
    }
}
