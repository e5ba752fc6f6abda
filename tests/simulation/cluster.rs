//! The real thing: PostgreSQL and `latchkey serve` processes, and what can be done to them.
//!
//! Nothing outlives this process: what is dropped is killed, and a small shell that waits for our end kills
//! and removes what we could not.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use latchkey::{
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    store::migrate,
};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

use crate::{proxy::Proxy, support::server::pepper};

const PROGRAM: &str = env!("CARGO_BIN_EXE_latchkey");
/// As short as the settings allow: a killed replica holds revocations up for so long.
pub const LEASE_MS: u64 = 1_000;
const PEPPER_VARIABLE: &str = "LATCHKEY_TEST_PEPPER";
/// Kills what it was told of and removes the folder when we are gone, however we went.
const JANITOR: &str = "trap '' INT TERM HUP; pids=; while read -r sign pid; do case $sign in \
     +) pids=\"$pids $pid \" ;; -) pids=$(echo \"$pids\" | sed \"s/ $pid / /\") ;; esac; done; \
     [ -z \"$pids\" ] || kill -9 $pids 2>/dev/null; sleep 3; rm -rf \"$1\"";

/// PostgreSQL, which can be hurt and comes back with its data, on another port.
pub struct Postgres {
    running: Option<PrivatePostgres>,
    pub port: Arc<AtomicU16>,
    folder: PathBuf,
    janitor: Janitor,
    next: AtomicU32,
}

#[derive(Clone)]
pub struct Janitor(Arc<Mutex<ChildStdin>>);

/// A `latchkey serve` of its own, behind a proxy of its own.
pub struct Replica {
    child: Child,
    pub channel: Channel,
    pub stopped: bool,
    pub proxy: Proxy,
    janitor: Janitor,
}

impl Janitor {
    #[expect(clippy::zombie_processes, reason = "it outlives this process, whose end it waits for")]
    fn start(folder: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", JANITOR, "latchkey-simulation-janitor"]).arg(folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("there is a shell");
        Self(Arc::new(Mutex::new(child.stdin.take().expect("it is piped"))))
    }

    fn tell(&self, sign: char, pid: u32) {
        _ = writeln!(self.0.lock().expect("no holder panics"), "{sign} {pid}");
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    _ = kill_process(pid, signal);
}

fn children_of(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

// === impl Postgres ===

impl Postgres {
    pub async fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, SeqCst);
        let folder = std::env::temp_dir().join(format!("latchkey-simulation-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let janitor = Janitor::start(&folder);
        let (port, next) = (Arc::default(), AtomicU32::new(1));
        let mut started = Self { running: None, port, folder, janitor, next };
        started.bring_up().await;
        let postgres = started.running();
        postgres.create_roles_and_database().await.expect("roles and database are made");
        let owner = postgres.owner_url(DATABASE).expect("the password is on file");
        migrate::migrate(&owner, APP_ROLE, |_| {}).await.expect("the template migrates");
        started
    }

    fn running(&self) -> &PrivatePostgres {
        self.running.as_ref().expect("PostgreSQL runs")
    }

    async fn bring_up(&mut self) {
        let settings = [("synchronous_commit".to_owned(), "on".to_owned())].into();
        let data = self.folder.join("postgres");
        for _ in 0..120 {
            // Throw-away means that no disk is waited for; a killed PostgreSQL loses nothing by that.
            let options = Options {
                remove_on_stop: false,
                max_connections: 200,
                settings: Clone::clone(&settings),
                ..Options::throwaway(&data)
            };
            match PrivatePostgres::start(options).await {
                Ok(postgres) => {
                    self.port.store(postgres.port(), SeqCst);
                    self.running = Some(postgres);
                    return;
                }
                // The last backends of a killed postmaster may still be there.
                Err(error) => eprintln!("PostgreSQL did not start, again: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        panic!("PostgreSQL does not come back");
    }

    fn postmaster(&self) -> u32 {
        self.postmaster_if_known().expect("PostgreSQL runs")
    }

    fn postmaster_if_known(&self) -> Option<u32> {
        let file = self.folder.join("postgres/postgres/data/postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
    }

    /// `kill -9`, and back again.
    pub async fn kill(&mut self) {
        let postmaster = self.postmaster();
        let backends = children_of(postmaster);
        signal(postmaster, Signal::KILL);
        // They end by themselves once they notice; on a busy machine that takes its time.
        backends.iter().for_each(|pid| signal(*pid, Signal::KILL));
        while self.running.as_mut().is_some_and(|running| !running.ended()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.restart().await;
    }

    pub async fn restart(&mut self) {
        if let Some(running) = self.running.take() {
            let before = self.postmaster_if_known();
            // After a `kill -9` the launcher may not be sure that nothing is left of it. Then this is.
            if let Err(error) = running.stop().await {
                eprintln!("PostgreSQL is killed: {error}");
                for pid in before.into_iter().flat_map(|pid| [children_of(pid), vec![pid]].concat()) {
                    signal(pid, Signal::KILL);
                }
            }
        }
        self.bring_up().await;
    }

    /// All of its processes stand still for a time.
    pub async fn stand_still(&self, time: Duration) {
        let postmaster = self.postmaster();
        signal(postmaster, Signal::STOP);
        let backends = children_of(postmaster);
        backends.iter().for_each(|pid| signal(*pid, Signal::STOP));
        tokio::time::sleep(time).await;
        backends.iter().for_each(|pid| signal(*pid, Signal::CONT));
        signal(postmaster, Signal::CONT);
    }

    /// A migrated database of a history's own.
    pub async fn fresh(&self) -> String {
        let name = format!("history_{}", self.next.fetch_add(1, SeqCst));
        self.running().create_database(&name, Some(DATABASE)).await.expect("the template can be cloned");
        name
    }

    pub async fn forget(&self, name: &str) {
        _ = self.running().drop_database(name).await;
    }

    fn url(&self, database: &str, port: u16) -> String {
        let url = self.running().app_url(database).expect("the password is on file");
        url.replace(&format!(":{}/", self.running().port()), &format!(":{port}/"))
    }

    /// Mints a `system.operate` key the way an operator does.
    pub async fn bootstrap(&self, database: &str) -> String {
        let mut command = program("bootstrap", &self.url(database, self.running().port()));
        command.stderr(log()).arg("--log-filter=error");
        let output = tokio::process::Command::from(command).output().await.expect("latchkey runs");
        assert!(output.status.success(), "bootstrap failed");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// A new epoch, the way an operator starts one. PostgreSQL may be in no state to take it.
    pub async fn accept_history(&self, database: &str) {
        let mut command = program("accept-history", &self.url(database, self.running().port()));
        command.stderr(log()).stdout(log()).arg("--log-filter=error");
        _ = tokio::process::Command::from(command).status().await.expect("latchkey runs");
    }

    /// Starts a replica and waits until it accepts connections.
    pub async fn replica(&self, database: &str, planted: Option<&str>, stale_ms: u64) -> Replica {
        let proxy = Proxy::start(self.port.clone()).await;
        let address = free_address();
        let mut command = program("serve", &self.url(database, proxy.address.port()));
        command
            .arg(format!("--stale-max-ms={stale_ms}"))
            .arg(format!("--listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log());
        if let Some(bug) = planted {
            command.env("LATCHKEY_SIM_PLANTED_BUG", bug);
        }
        let child = command.spawn().expect("latchkey runs");
        self.janitor.tell('+', child.id());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        let replica = Replica { child, channel, stopped: false, proxy, janitor: self.janitor.clone() };
        for _ in 0..300 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        replica
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running);
        }
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn program(command: &str, database_url: &str) -> Command {
    let mut program = Command::new(PROGRAM);
    program.arg(command).env("LATCHKEY_DATABASE_URL", database_url).env(PEPPER_VARIABLE, pepper());
    program.env_remove("LATCHKEY_TEST_LOG_DIR").stdin(Stdio::null());
    program.arg(format!("--peppers=test=env:{PEPPER_VARIABLE}"));
    let settings = [
        ("lease-ms", LEASE_MS),
        ("poll-interval-ms", 100),
        ("database-pool-size-max", 4),
        ("verify-pool-size-max", 3),
        ("database-timeout-ms", 1_500),
        ("drain-timeout-s", 1),
    ];
    program.args(settings.iter().map(|(name, value)| format!("--{name}={value}")));
    program
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a free port")
}

fn log() -> Stdio {
    let Some(folder) = crate::support::logs::folder() else { return Stdio::null() };
    let path = folder.join(format!("simulation-{}.log", std::process::id()));
    File::options().create(true).append(true).open(path).expect("the log folder is writable").into()
}

// === impl Replica ===

impl Replica {
    pub fn stop(&mut self) {
        signal(self.child.id(), Signal::STOP);
        self.stopped = true;
    }

    pub fn carry_on(&mut self) {
        signal(self.child.id(), Signal::CONT);
        self.stopped = false;
    }

    /// Ends it cleanly, if it can within the time that it is given.
    pub async fn leave(mut self) {
        self.carry_on();
        signal(self.child.id(), Signal::TERM);
        for _ in 0..150 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Replica {
    /// `kill -9`.
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        self.janitor.tell('-', self.child.id());
    }
}
