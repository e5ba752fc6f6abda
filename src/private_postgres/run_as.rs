//! Chooses the user that PostgreSQL runs as: ours or, if we are root, another one (PostgreSQL refuses to run as root).

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PrivatePostgresError;
use super::error::at;

/// The environment that PostgreSQL's programs get: enough to run, and nothing that may hold our own secrets.
const ENVIRONMENT: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// Runs PostgreSQL's programs as the chosen user.
#[derive(Debug, Clone)]
pub(super) struct RunAs {
    /// `None`: our own user.
    switch_to: Option<UnixUser>,
}

#[derive(Debug, Clone)]
struct UnixUser {
    name: String,
    uid: u32,
    gid: u32,
}

// === impl RunAs ===

impl RunAs {
    /// Chooses our own user or, as root, the owner of `cluster_home` if it exists, else `postgres`, else `nobody`.
    pub(super) fn choose(cluster_home: &Path) -> Result<Self, PrivatePostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { switch_to: None });
        }
        if let Ok(metadata) = std::fs::symlink_metadata(cluster_home)
            && metadata.uid() != 0
        {
            let (uid, gid) = (metadata.uid(), metadata.gid());
            return Ok(Self { switch_to: Some(UnixUser { name: format!("with id {uid}"), uid, gid }) });
        }
        let user = ["postgres", "nobody"].into_iter().find_map(UnixUser::named);
        Ok(Self { switch_to: Some(user.ok_or(PrivatePostgresError::NoUnprivilegedUser)?) })
    }

    /// Builds a command that runs as this user, with a bare environment, from a folder that every user may enter.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(user) = &self.switch_to {
            // Setting a uid as root makes std drop all supplementary groups too.
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Makes this user the owner of a file or folder that we created.
    pub(super) fn give(&self, path: &Path) -> Result<(), PrivatePostgresError> {
        let Some(user) = &self.switch_to else { return Ok(()) };
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(at("change the owner of", path))
    }

    /// Makes sure that this user can enter `data_dir`: opens that folder itself (`o+x`), but none of its parents, which
    /// are not ours to change.
    pub(super) fn let_into(&self, data_dir: &Path) -> Result<(), PrivatePostgresError> {
        let Some(user) = &self.switch_to else { return Ok(()) };
        let refused = |folder| PrivatePostgresError::NotTraversable { user: user.name.clone(), folder };
        match self.first_closed(data_dir)? {
            None => return Ok(()),
            Some(folder) if folder != data_dir => return Err(refused(folder)),
            Some(_) => {}
        }
        let mode = std::fs::metadata(data_dir).map_err(at("read", data_dir))?.permissions().mode();
        let opened = std::fs::Permissions::from_mode(mode | 0o001);
        std::fs::set_permissions(data_dir, opened).map_err(at("change the permissions of", data_dir))?;
        self.first_closed(data_dir)?.map_or(Ok(()), |folder| Err(refused(folder)))
    }

    /// Finds the first folder, from the root, that this user cannot enter. The kernel decides, not the mode bits:
    /// access lists and mounts count too.
    fn first_closed(&self, folder: &Path) -> Result<Option<PathBuf>, PrivatePostgresError> {
        let mut ancestors: Vec<&Path> = folder.ancestors().collect();
        ancestors.reverse();
        let shell = Path::new("/bin/sh");
        let script = "for d in \"$@\"; do [ -x \"$d\" ] || exit \"$i\"; i=$((i + 1)); done; exit 0";
        // The answer travels as an exit status, 1 + the index; paths may hold anything, and no path is 250 deep.
        let mut command = self.command(shell);
        command.arg("-c").arg(format!("i=1; {script}")).arg("latchkey-way").args(&ancestors);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.map_err(|source| PrivatePostgresError::Spawn { program: shell.to_owned(), source })?;
        let closed = usize::try_from(status.code().unwrap_or(1)).unwrap_or(1);
        Ok(closed.checked_sub(1).map(|index| ancestors.get(index).unwrap_or(&folder).to_path_buf()))
    }
}

// === impl UnixUser ===

impl UnixUser {
    /// Looks a user up with `id`, which knows every source of users that the machine is set up with.
    fn named(name: &str) -> Option<Self> {
        let number = |flag: &str| {
            let output = Command::new("id").args([flag, name]).stdin(Stdio::null()).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            text.trim().parse::<u32>().ok().filter(|id| output.status.success() && *id != 0)
        };
        Some(Self { name: name.to_owned(), uid: number("-u")?, gid: number("-g")? })
    }
}
