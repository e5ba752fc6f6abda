//! A TCP proxy of our own between one replica and PostgreSQL, to hurt their connections in the ways networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

const POLL: Duration = Duration::from_millis(5);

/// What the proxy does to what passes through it.
#[derive(Default)]
struct Weather {
    delay_ms: AtomicU64,
    /// Held, not lost: what TCP does while one direction of a path is cut.
    hold_to_database: AtomicBool,
    hold_to_replica: AtomicBool,
    /// New connections are closed at once.
    refuse: AtomicBool,
    /// Connections made in an earlier generation end.
    generation: AtomicU64,
    /// The same, for connections that listen.
    listen_generation: AtomicU64,
}

/// One replica's way to PostgreSQL. Gone when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    weather: Arc<Weather>,
    accepting: JoinHandle<()>,
}

struct Link {
    weather: Arc<Weather>,
    generation: u64,
    listen_generation: u64,
    listens: AtomicBool,
    to_database: bool,
}

impl Proxy {
    /// Forwards to whatever port PostgreSQL has at the moment.
    pub async fn start(database_port: Arc<AtomicU16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let weather = Arc::new(Weather::default());
        let shared = weather.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((replica, _)) = listener.accept().await {
                if !shared.refuse.load(SeqCst) {
                    tokio::spawn(carry(replica, database_port.load(SeqCst), shared.clone()));
                }
            }
        });
        Self { address, weather, accepting }
    }

    pub fn delay(&self, delay: Duration) {
        self.weather.delay_ms.store(delay.as_millis() as u64, SeqCst);
    }

    pub fn hold(&self, to_database: bool, to_replica: bool) {
        self.weather.hold_to_database.store(to_database, SeqCst);
        self.weather.hold_to_replica.store(to_replica, SeqCst);
    }

    /// Cuts every connection, and keeps out new ones until it is healed.
    pub fn refuse(&self) {
        self.weather.refuse.store(true, SeqCst);
        self.cut();
    }

    pub fn cut(&self) {
        self.weather.generation.fetch_add(1, SeqCst);
    }

    pub fn cut_listeners(&self) {
        self.weather.listen_generation.fetch_add(1, SeqCst);
    }

    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        self.hold(false, false);
        self.weather.refuse.store(false, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn carry(replica: TcpStream, port: u16, weather: Arc<Weather>) {
    let Ok(database) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    _ = (replica.set_nodelay(true), database.set_nodelay(true));
    let (from_replica, to_replica) = replica.into_split();
    let (from_database, to_database) = database.into_split();
    let link = |to_database| Link {
        generation: weather.generation.load(SeqCst),
        listen_generation: weather.listen_generation.load(SeqCst),
        listens: AtomicBool::new(false),
        weather: weather.clone(),
        to_database,
    };
    let (up, down) = (link(true), link(false));
    // Whichever ends first ends both.
    tokio::select! {
        () = pump(from_replica, to_database, &up) => {}
        () = pump(from_database, to_replica, &down) => {}
        () = ended(&up) => {}
    }
}

async fn ended(link: &Link) {
    loop {
        tokio::time::sleep(POLL).await;
        let cut = link.weather.generation.load(SeqCst) != link.generation;
        let deaf = link.weather.listen_generation.load(SeqCst) != link.listen_generation;
        if cut || (deaf && link.listens.load(SeqCst)) {
            return;
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: &Link) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut bytes).await
        && count > 0
    {
        if link.to_database && bytes[..count].windows(7).any(|seen| seen == b"LISTEN ") {
            link.listens.store(true, SeqCst);
        }
        let delay = link.weather.delay_ms.load(SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let held = if link.to_database { &link.weather.hold_to_database } else { &link.weather.hold_to_replica };
        while held.load(SeqCst) {
            tokio::time::sleep(POLL).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
