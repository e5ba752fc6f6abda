//! What `latchkey dev` keeps in its data folder beside PostgreSQL: the pepper, and the last run's key.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    app::mint::{Entropy, OsEntropy},
    cli::Failure,
    domain::id::KeyId,
};

const PEPPER: &str = "pepper";
const LAST_KEY: &str = "last-key";

/// The data folder if none is named: a place that PostgreSQL's own user can enter too.
pub(super) fn default() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/latchkey-dev"));
    }
    let data_home = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = data_home.or_else(home).ok_or("no home folder is known: name a folder with --data-dir DIR")?;
    Ok(base.join("latchkey").join("dev"))
}

/// The `peppers` setting: a secret of this folder's own, made on its first use.
pub(super) fn pepper_setting(data_dir: &Path) -> Result<String, Failure> {
    fs::create_dir_all(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
    let path = data_dir.join(PEPPER);
    let mut secret = Zeroizing::new([0; 32]);
    OsEntropy.fill(secret.as_mut());
    let text = Zeroizing::new(secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file.write_all(text.as_bytes())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("{}: {error}", path.display()).into()),
    }
    Ok(format!("dev=file:{}", path.display()))
}

/// Writes down this run's key and tells the last run's.
pub(super) fn remember_key(data_dir: &Path, key: KeyId) -> Result<Option<KeyId>, Failure> {
    let path = data_dir.join(LAST_KEY);
    let last = fs::read_to_string(&path).ok().and_then(|text| KeyId::parse("key_id", text.trim()).ok());
    fs::write(&path, key.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(last)
}
