//! A private PostgreSQL that can be made to hang, or stopped and started, behind one address that stays.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use latchkey::{
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    store::migrate,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::support::{database::Database, logs};

/// How PostgreSQL goes away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// SIGSTOP to all of its processes: connections stay open and nobody answers.
    Hang,
    /// A real stop: connections end, and new ones are refused.
    Stop,
}

/// Dropped in this order: what hangs goes on before it is stopped.
pub struct Postgres {
    hung: Hung,
    running: Option<PrivatePostgres>,
    folder: PathBuf,
    front_port: u16,
    back_port: Arc<AtomicU16>,
    forwarding: JoinHandle<()>,
}

/// The processes that were told to hang; dropping it lets them go on.
#[derive(Default)]
struct Hung(Vec<Pid>);

// === impl Postgres ===

impl Postgres {
    pub async fn start(name: &str) -> Self {
        logs::start();
        let folder = std::env::temp_dir().join(format!("latchkey-outage-{name}-{}", std::process::id()));
        let running = start(&folder).await;
        running.create_roles_and_database().await.unwrap();
        migrate::migrate(&running.owner_url(DATABASE).unwrap(), APP_ROLE, |_| {}).await.unwrap();
        let back_port = Arc::new(AtomicU16::new(running.port()));
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front_port = front.local_addr().unwrap().port();
        let forwarding = tokio::spawn(forward(front, back_port.clone()));
        Self { hung: Hung::default(), running: Some(running), folder, front_port, back_port, forwarding }
    }

    /// The database, at the address that stays.
    pub fn database(&self) -> Database {
        let running = self.running.as_ref().unwrap();
        let (back, front) = (format!(":{}/", running.port()), format!(":{}/", self.front_port));
        Database {
            name: DATABASE.into(),
            app_url: running.app_url(DATABASE).unwrap().replace(&back, &front),
            owner_url: running.owner_url(DATABASE).unwrap().replace(&back, &front),
        }
    }

    pub async fn take_away(&mut self, outage: Outage) {
        match outage {
            Outage::Hang => self.hung = Hung::all_of(&self.folder),
            // Stopping this way keeps the folder: it is started again.
            Outage::Stop => self.running.take().unwrap().stop().await.unwrap(),
        }
    }

    pub async fn bring_back(&mut self, outage: Outage) {
        match outage {
            Outage::Hang => self.hung = Hung::default(),
            Outage::Stop => {
                let running = start(&self.folder).await;
                self.back_port.store(running.port(), Ordering::SeqCst);
                self.running = Some(running);
            }
        }
    }

    pub async fn stop(mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.forwarding.abort();
        self.hung = Hung::default();
        drop(self.running.take());
        // It is kept over a restart, and so removed here.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn start(folder: &Path) -> PrivatePostgres {
    PrivatePostgres::start(Options::durable(folder)).await.unwrap()
}

async fn forward(front: TcpListener, back_port: Arc<AtomicU16>) {
    // Connections end with it.
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = front.accept().await {
        let port = back_port.load(Ordering::SeqCst);
        connections.spawn(async move {
            // A connection that fails is dropped, which its client sees.
            if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

// === impl Hung ===

impl Hung {
    /// Stops the postmaster first, so that it starts nothing more, then its children.
    fn all_of(folder: &Path) -> Self {
        let postmaster = postmaster(folder);
        let mut hung = Self(vec![postmaster]);
        kill_process(postmaster, Signal::STOP).unwrap();
        for child in children(postmaster) {
            // It may have ended by itself.
            if kill_process(child, Signal::STOP).is_ok() {
                hung.0.push(child);
            }
        }
        hung
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        for pid in self.0.drain(..).rev() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

fn postmaster(folder: &Path) -> Pid {
    let text = std::fs::read_to_string(folder.join("postgres/data/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
}

fn children(parent: Pid) -> Vec<Pid> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may contain anything: state, then the parent.
        let parent_of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent_of == Some(parent.as_raw_nonzero().get())
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}
