//! Makes the cluster once, and starts PostgreSQL on a free port each time.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::PrivatePostgresError;
use super::binaries::Binaries;
use super::error::at;
use super::folder::{Folder, last_lines, write_secret};
use super::options::{Durability, Options};
use super::run_as::RunAs;
use super::watchdog::Watchdog;

/// The role that `initdb` creates.
pub(super) const SUPERUSER: &str = "postgres";

/// A free port may be lost before PostgreSQL binds it.
const PORT_ATTEMPTS_MAX: u32 = 5;
/// Long, because crash recovery of a large cluster takes time.
const READY_WAIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);
/// Five seconds in all.
const HALF_MADE_ATTEMPTS_MAX: u32 = 100;
const HALF_MADE_PAUSE: Duration = Duration::from_millis(50);

/// Settings that make PostgreSQL fast, at the price of durability.
const THROWAWAY: [&str; 6] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "wal_init_zero=off",
];

/// Settings of every private server. No statement text is ever logged: it may hold a role's password.
const ALWAYS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
    "log_statement=none",
    "log_min_error_statement=panic",
];

/// Removes what an interrupted `initdb` left. Its children may still be writing there, and exit soon after it.
async fn remove_half_made(folder: &Path) -> Result<(), PrivatePostgresError> {
    for _ in 0..HALF_MADE_ATTEMPTS_MAX {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // A file that was made in it after its entries were read; or gone, once they are.
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => tokio::time::sleep(HALF_MADE_PAUSE).await,
            Err(error) => return Err(at("remove", folder)(error)),
        }
    }
    std::fs::remove_dir_all(folder).map_err(at("remove", folder))
}

/// Runs `initdb`, unless the folder holds a cluster already.
pub(super) async fn ensure_cluster(
    folder: &Folder,
    run_as: &RunAs,
    binaries: &Binaries,
    durability: Durability,
    watchdog: &Watchdog,
    password: &str,
) -> Result<(), PrivatePostgresError> {
    if folder.cluster_major()?.is_some() {
        return Ok(());
    }
    tracing::info!(major = binaries.major, folder = %folder.path().display(), "initialising PostgreSQL");
    let home = folder.cluster_home();
    let (new, password_file) = (home.join("data.new"), home.join("initdb.password"));
    remove_half_made(&new).await?;
    write_secret(&password_file, password)?;
    run_as.give(&password_file)?;

    let program = binaries.program("initdb");
    let mut command = run_as.command(&program);
    command.arg("-D").arg(&new).args(["-U", SUPERUSER, "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
    command.arg("--pwfile").arg(&password_file);
    match durability {
        Durability::Durable => command.arg("--data-checksums"),
        Durability::Throwaway => command.arg("--no-sync"),
    };
    command.stdin(watchdog.hold()?).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Killed if this future is dropped (Ctrl-C meanwhile); the next start removes what it left unfinished.
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    // Removed whether or not initdb succeeded, so that no copy of the password is left over.
    let removed = std::fs::remove_file(&password_file);
    let output = output.map_err(|source| PrivatePostgresError::Spawn { program, source })?;
    removed.map_err(at("remove", &password_file))?;
    if !output.status.success() {
        let said = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(PrivatePostgresError::Initdb { folder: folder.path().to_owned(), said });
    }
    // The rename is what makes it a cluster: a kill before it leaves nothing that looks like one.
    std::fs::rename(&new, folder.cluster()).map_err(at("rename", &new))
}

/// Starts PostgreSQL and waits until it takes connections. Returns its port on 127.0.0.1.
pub(super) async fn run(
    folder: &Folder,
    run_as: &RunAs,
    binaries: &Binaries,
    options: &Options,
    watchdog: &mut Watchdog,
) -> Result<u16, PrivatePostgresError> {
    folder.rotate_log();
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        let arguments = arguments(&folder.cluster(), port, options);
        tracing::info!(major = binaries.major, port, "starting PostgreSQL");
        watchdog.start(run_as, &binaries.program("postgres"), &arguments, folder.open_log()?)?;
        let Err(why) = ready(folder, watchdog).await else {
            return Ok(port);
        };
        let (log, tail) = folder.log_tail();
        let port_lost = tail.contains("could not bind") || tail.contains("could not create any TCP/IP sockets");
        if !(port_lost && watchdog.postgres_ended() && attempt < PORT_ATTEMPTS_MAX) {
            return Err(PrivatePostgresError::NotStarted { why, log, tail });
        }
        tracing::info!(port, "the port was taken by another program: trying another one");
        attempt += 1;
    }
}

/// Waits until PostgreSQL takes connections; otherwise says why it does not.
async fn ready(folder: &Folder, watchdog: &mut Watchdog) -> Result<(), String> {
    let waited = tokio::time::timeout(READY_WAIT, async {
        while !folder.postmaster_ready() {
            if watchdog.postgres_ended() {
                return Err("it exited".to_owned());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    });
    waited.await.unwrap_or_else(|_elapsed| Err(format!("it was not ready within {} s", READY_WAIT.as_secs())))
}

/// Builds the arguments of `postgres`. `-D` comes first: the janitor recognises the postmaster by it.
fn arguments(cluster: &Path, port: u16, options: &Options) -> Vec<String> {
    let mut settings: Vec<String> = ALWAYS.iter().map(ToString::to_string).collect();
    settings.push(format!("port={port}"));
    settings.push(format!("max_connections={}", options.max_connections));
    if options.durability == Durability::Throwaway {
        settings.extend(THROWAWAY.iter().map(ToString::to_string));
    }
    settings.extend(options.settings.iter().map(|(name, value)| format!("{name}={value}")));
    let mut arguments = vec!["-D".to_owned(), cluster.to_string_lossy().into_owned()];
    for setting in settings {
        arguments.extend(["-c".to_owned(), setting]);
    }
    arguments
}

fn free_port() -> Result<u16, PrivatePostgresError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(listener.map_err(at("find a free port on", Path::new("127.0.0.1")))?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_still_written_to_is_removed_once_its_writer_ends() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = scratch.path().join("data.new");
        std::fs::create_dir(&folder).expect("it is made");
        let written = folder.clone();
        let writer = std::thread::spawn(move || {
            // Until the folder is gone under it.
            (0..20_000).take_while(|n| std::fs::write(written.join(n.to_string()), "x").is_ok()).count()
        });
        remove_half_made(&folder).await.expect("it is removed");
        writer.join().expect("no panic");
        assert!(!folder.exists());
        remove_half_made(&folder).await.expect("nothing to remove");
    }
}
