//! Keeps the pepper of `latchkey dev` and the ids of its own keys in its data folder, beside PostgreSQL. Use it only
//! while PostgreSQL's lock on the folder is held.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{cli::failure::Failure, domain::id::KeyId, entropy::random_hex};

const PEPPER: &str = "pepper";
/// The keys that runs minted and that may still be live, one id a line. More than one only after a kill.
const KEYS: &str = "keys";

/// Chooses the data folder when no flag does: one that PostgreSQL's own user can enter too.
pub(super) fn default() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/latchkey-dev"));
    }
    let data_home = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = data_home.or_else(home).ok_or("there is no home folder; choose a folder with --data-dir DIR")?;
    Ok(base.join("latchkey").join("dev"))
}

/// Returns the `peppers` setting, which names a secret of this folder, generated on first use.
pub(super) fn pepper_setting(data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join(PEPPER);
    if !path.try_exists().map_err(|error| at(&path, &error))? {
        replace(&path, &random_hex())?;
    }
    Ok(format!("dev=file:{}", path.display()))
}

/// Records this run's key beside those of earlier runs, and returns the earlier ones. A key is removed from the file
/// only after it is deleted, so a kill at any moment leaves no live key that the next run does not know of.
pub(super) fn add_key(data_dir: &Path, key: KeyId) -> Result<Vec<KeyId>, Failure> {
    let path = data_dir.join(KEYS);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| at(&path, &error))?,
    };
    let earlier: Vec<KeyId> = text.lines().filter_map(|line| KeyId::parse("key_id", line.trim()).ok()).collect();
    let lines: String = earlier.iter().chain([&key]).map(|key| format!("{key}\n")).collect();
    replace(&path, &lines)?;
    Ok(earlier)
}

/// Records this run's key as the only one.
pub(super) fn keep_only_key(data_dir: &Path, key: KeyId) -> Result<(), Failure> {
    replace(&data_dir.join(KEYS), &format!("{key}\n"))
}

/// Writes a file that only we may read. It is renamed into place, so that a kill never leaves half of it.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&aside, &error)),
        _ => {}
    }
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&aside, path)).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    format!("{}: {error}", path.display()).into()
}
