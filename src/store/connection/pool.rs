//! Connections, in lanes: each lane has a pool of its own, so that no appetite for one kind of work delays another, least
//! of all a revocation or the lease; and the bookkeeping that keeps a connection in an unknown state from ever being
//! used again.
//!
//! A connection's driver is a task of the runtime that made it, so every connection of a lane is made on one given
//! runtime, whatever runtime asks: those of reads, whose answers may be large, on that of the bulk threads. Every
//! connection insists on the primary: a standby could answer from a state before a revocation.

use std::{future::Future, time::Duration};

use deadpool::managed::QueueMode;
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{Object, Pool},
    },
};
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{
    availability::{Availability, connecting_is_answer},
    identity::{self, KnownIdentity},
    sqlstate,
};
use crate::app::{
    error::StoreError,
    ports::{Lane, StoreResult},
};

/// The pools.
#[derive(Clone)]
pub struct Pools {
    narrowing: Pool<AsyncPgConnection>,
    callers: Pool<AsyncPgConnection>,
    mutations: Pool<AsyncPgConnection>,
    reads: Pool<AsyncPgConnection>,
    watches: Pool<AsyncPgConnection>,
    misses: Pool<AsyncPgConnection>,
    upkeep: Pool<AsyncPgConnection>,
    follower: Pool<AsyncPgConnection>,
    availability: Availability,
    identity: KnownIdentity,
    timeout: Duration,
    runtime: Handle,
}

/// How many connections each lane may have.
#[derive(Clone, Copy, Debug)]
pub struct LaneSizes {
    /// Mutations that only take authority away.
    pub narrowing: usize,
    /// Looking up the users that services act for.
    pub callers: usize,
    /// All other mutations.
    pub mutations: usize,
    /// Reads.
    pub reads: usize,
    /// Reads of open watches.
    pub watches: usize,
    /// Verifications that memory cannot answer.
    pub misses: usize,
    /// Housekeeping.
    pub upkeep: usize,
}

/// The follower's own connections: nothing else must cost the lease. One for its rounds, one for the barrier's looks
/// and one for an eviction: of each there is one at a time.
const FOLLOWER_SIZE_MAX: usize = 3;

/// A connection out of a pool. It goes back only in a known state: in a transaction, or if the future of a statement
/// was dropped, it is rolled back first; one whose answer did not come in time is closed.
pub struct Connection {
    object: Option<Object<AsyncPgConnection>>,
    state: State,
    failed: bool,
    timeout: Duration,
    runtime: Handle,
    availability: Availability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Fit for the pool.
    Clean,
    /// In a transaction, no statement under way.
    InTransaction,
    /// A statement is under way. Given up with it, the connection is fit again once its answer has come and the
    /// transaction is rolled back.
    Busy,
    /// It did not answer in time, or is no primary any more: never to be used again.
    Broken,
}

/// The run of one statement on a [`Connection`].
pub struct Flight<'a> {
    state: &'a mut State,
    failed: &'a mut bool,
    timeout: Duration,
    availability: &'a Availability,
}

// === impl Pools ===

impl Pools {
    /// Pools of at most so many connections each; none is made before it is needed.
    pub fn new(url: &str, sizes: LaneSizes, timeout: Duration, runtime: Handle, bulk: Handle) -> StoreResult<Self> {
        let availability = Availability::new(primary_only(url), timeout, runtime.clone());
        let pool = |size_max: usize, work: Work, runtime: &Handle| {
            let mut config = ManagerConfig::default();
            // A connection that is known to be clean needs no round trip to show it; one whose
            // server is gone is noticed by its driver.
            config.recycling_method = RecyclingMethod::Fast;
            let (runtime, availability) = (runtime.clone(), availability.clone());
            config.custom_setup = Box::new(move |url| {
                let (url, availability) = (url.to_owned(), availability.clone());
                let made = runtime
                    .spawn(async move { availability.watch(connect(url, timeout, work), connecting_is_answer).await });
                async move { made.await.unwrap_or_else(|gone| Err(ConnectionError::BadConnection(gone.to_string()))) }
                    .boxed()
            });
            let manager = AsyncDieselConnectionManager::new_with_config(primary_only(url), config);
            // The connection that was used last: its server process has what it needs at hand, and a burst's many
            // processes are not all kept warm for ever by one call at a time.
            let builder = Pool::builder(manager).max_size(size_max).queue_mode(QueueMode::Lifo);
            builder.build().map_err(|error| StoreError::Bug(error.into()))
        };
        Ok(Self {
            narrowing: pool(sizes.narrowing, Work::OfCallers, &runtime)?,
            callers: pool(sizes.callers, Work::OfCallers, &runtime)?,
            mutations: pool(sizes.mutations, Work::OfCallers, &runtime)?,
            reads: pool(sizes.reads, Work::OfCallers, &bulk)?,
            watches: pool(sizes.watches, Work::OfCallers, &runtime)?,
            misses: pool(sizes.misses, Work::OfCallers, &runtime)?,
            upkeep: pool(sizes.upkeep, Work::OfItself, &runtime)?,
            follower: pool(FOLLOWER_SIZE_MAX, Work::OfItself, &runtime)?,
            availability,
            identity: KnownIdentity::default(),
            timeout,
            runtime,
        })
    }

    /// A connection of a lane.
    pub async fn lane(&self, lane: Lane) -> StoreResult<Connection> {
        self.identity.check()?;
        self.get_if_there(match lane {
            Lane::Narrowing => &self.narrowing,
            Lane::Callers => &self.callers,
            Lane::Mutations => &self.mutations,
            Lane::Reads => &self.reads,
            Lane::Watches => &self.watches,
            Lane::Upkeep => &self.upkeep,
        })
        .await
    }

    /// A connection for verification misses.
    pub async fn misses(&self) -> StoreResult<Connection> {
        self.identity.check()?;
        self.get_if_there(&self.misses).await
    }

    /// A connection for the barrier's looks and evictions.
    pub async fn barrier(&self) -> StoreResult<Connection> {
        self.get_if_there(&self.follower).await
    }

    /// A connection for the follower, which asks whatever is known of the database.
    pub async fn follower(&self) -> StoreResult<Connection> {
        self.get(&self.follower).await
    }

    /// What is known of the database.
    pub fn availability(&self) -> &Availability {
        &self.availability
    }

    /// Whether the database is the one that its log was written in.
    pub fn identity(&self) -> &KnownIdentity {
        &self.identity
    }

    /// The time limit of one statement.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn get_if_there(&self, pool: &Pool<AsyncPgConnection>) -> StoreResult<Connection> {
        self.availability.check()?;
        self.get(pool).await
    }

    async fn get(&self, pool: &Pool<AsyncPgConnection>) -> StoreResult<Connection> {
        let limit = self.timeout;
        let got = if pool.status().available > 0 {
            tokio::time::timeout(limit, pool.get()).await
        } else {
            // In a task of its own: a caller that gives up while one is made would leave it to no pool, and the next
            // would have another made. So it goes back to the pool when it is there.
            let pool = pool.clone();
            let getting = self.runtime.spawn(async move { tokio::time::timeout(limit, pool.get()).await });
            getting.await.map_err(|gone| StoreError::Unavailable(gone.into()))?
        };
        let object = got.map_err(|_| sqlstate::timed_out())?.map_err(sqlstate::pool_error)?;
        let (timeout, runtime, availability) = (self.timeout, self.runtime.clone(), self.availability.clone());
        Ok(Connection { object: Some(object), state: State::Clean, failed: false, timeout, runtime, availability })
    }

    /// Closes the pools: whoever asks for a connection from now on is told UNAVAILABLE.
    pub fn close(&self) {
        self.availability.close();
        let Self { narrowing, callers, mutations, reads, watches, misses, upkeep, follower, .. } = self;
        for pool in [narrowing, callers, mutations, reads, watches, misses, upkeep, follower] {
            pool.close();
        }
    }
}

/// Look-ups are over before a compiler would have warmed up: on a young database, whose statistics
/// are guesses, one `jit` run costs hundreds of milliseconds. And `sqlstate` reads untranslated
/// messages; only a role that was granted it may ask for them, and nearly every server is untranslated
/// anyway, so a refusal is no reason not to go on.
const SETUP_SQL: &str = "SET jit = off; \
     DO $$ BEGIN PERFORM set_config('lc_messages', 'C', false); \
     EXCEPTION WHEN insufficient_privilege THEN NULL; END $$";

/// Whose work a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// What a caller is answered by: only from the database that the log was written in.
    OfCallers,
    /// The follower's looks, which find that out; upkeep and an operator's commands, of which one accepts it.
    OfItself,
}

/// Connects for some work.
async fn connect(url: String, timeout: Duration, work: Work) -> ConnectionResult<AsyncPgConnection> {
    let connect = async {
        let mut connection = establish(url, timeout, Some(timeout)).await?;
        if work == Work::OfCallers {
            let checked = connection.batch_execute(identity::CHECK_SQL).await;
            checked.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(connection)
    };
    let late = || Err(ConnectionError::BadConnection("connecting took longer than the time limit".into()));
    tokio::time::timeout(timeout, connect).await.unwrap_or_else(|_| late())
}

/// Connects to the primary within the time limit. With a statement limit the server itself ends what
/// runs longer: else each statement given up here would leave a busy backend behind, and a long lock
/// would use up the server's connections.
pub async fn establish(
    url: String,
    timeout: Duration,
    statement: Option<Duration>,
) -> ConnectionResult<AsyncPgConnection> {
    let limit = statement.map(|limit| format!("; SET statement_timeout = '{}ms'", limit.as_millis()));
    let setup = format!("{SETUP_SQL}{}", limit.unwrap_or_default());
    let connect = async {
        let mut connection = AsyncPgConnection::establish(&url).await?;
        connection.batch_execute(&setup).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    };
    let late = || Err(ConnectionError::BadConnection("connecting took longer than the time limit".into()));
    tokio::time::timeout(timeout, connect).await.unwrap_or_else(|_| late())
}

/// So that a connection whose other end is gone without a word is noticed within 20 seconds, not hours: one that only
/// listens never sends, and every revocation would wait for polls meanwhile.
const KEEPALIVES: [&str; 3] = ["keepalives_idle=10", "keepalives_interval=3", "keepalives_retries=3"];

/// The URL, with the demand for a primary (the last of two parameters of a name counts), and with keepalives unless it
/// has its own.
pub fn primary_only(url: &str) -> String {
    const PRIMARY: &str = "target_session_attrs=read-write";
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let between = if is_url { "&" } else { " " };
    let first = if is_url && !url.contains('?') { "?" } else { between };
    let keepalives = if url.contains("keepalives") { &[][..] } else { &KEEPALIVES };
    let parameters = [keepalives, &[PRIMARY]].concat().join(between);
    format!("{url}{first}{parameters}")
}

// === impl Connection ===

impl Connection {
    /// The connection, and the run of one statement on it.
    pub fn parts(&mut self) -> (&mut AsyncPgConnection, Flight<'_>) {
        let Self { object, state, failed, timeout, availability, .. } = self;
        let object = object.as_mut().expect("only drop and discard take it");
        (object, Flight { state, failed, timeout: *timeout, availability })
    }

    /// Opens a transaction with the statements of `begin`, in one round trip.
    pub async fn begin(&mut self, begin: &str) -> StoreResult<()> {
        let (connection, flight) = self.parts();
        let begun = flight.run(connection.batch_execute(begin)).await;
        self.begun(begun)
    }

    /// Notes what became of statements that open a transaction and do more.
    pub fn begun<T>(&mut self, result: StoreResult<T>) -> StoreResult<T> {
        // If the server refused one, it may have done so before BEGIN or after it: rolled back either way.
        if self.state == State::Clean {
            self.state = State::InTransaction;
        }
        result
    }

    fn mark_clean(&mut self) {
        self.state = State::Clean;
    }

    /// Commits, or says that nobody knows.
    pub async fn commit(mut self) -> StoreResult<()> {
        if self.failed {
            return Err(sqlstate::commit_after_failure());
        }
        let object = self.object.as_mut().expect("only drop and discard take it");
        self.state = State::Broken;
        // The time limit closes the connection and cancels nothing: a cancelled wait for a
        // synchronous standby would be answered as if the standby had the commit.
        let commit = tokio::time::timeout(self.timeout, object.batch_execute("COMMIT"));
        let commit = commit.map(|committed| match committed {
            Err(_) => Err(sqlstate::commit_timed_out()),
            Ok(result) => result.map_err(sqlstate::commit_error),
        });
        self.availability.watch(commit, sqlstate::is_answer).await?;
        self.state = State::Clean;
        Ok(())
    }

    /// Gives up the transaction.
    pub async fn rollback(mut self) -> StoreResult<()> {
        let (connection, flight) = self.parts();
        flight.run(connection.batch_execute("ROLLBACK")).await?;
        self.state = State::Clean;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        match self.state {
            State::Clean => drop(object),
            State::Broken => drop(Object::take(object)),
            // Not closed: whoever begins calls and cancels them would have PostgreSQL start a process for each, while
            // those of the cancelled ones still run. The rollback is answered after all that was sent before it, and
            // the place in the pool is taken until then.
            State::Busy | State::InTransaction => {
                // A connection of its own state machine: if the runtime is gone, or the rollback
                // fails, it is dropped while broken and hence closed, never returned dirty.
                let mut connection = Self {
                    object: Some(object),
                    state: State::Broken,
                    failed: false,
                    timeout: self.timeout,
                    runtime: self.runtime.clone(),
                    availability: self.availability.clone(),
                };
                self.runtime.spawn(async move {
                    let timeout = connection.timeout;
                    let (raw, _) = connection.parts();
                    if let Ok(Ok(())) = tokio::time::timeout(timeout, raw.batch_execute("ROLLBACK")).await {
                        connection.mark_clean();
                    }
                });
            }
        }
    }
}

// === impl Flight ===

impl Flight<'_> {
    /// Runs one statement within the time limit.
    pub async fn run<T>(self, statement: impl Future<Output = QueryResult<T>>) -> StoreResult<T> {
        let before = std::mem::replace(self.state, State::Busy);
        // If this future is dropped here, or the time limit passes, the state stays Busy.
        let state = &mut *self.state;
        let answered = tokio::time::timeout(self.timeout, statement).map(|answered| match answered {
            Err(_) => Err(sqlstate::timed_out()),
            Ok(result) => {
                *state = before;
                result.map_err(sqlstate::error)
            }
        });
        let result = self.availability.watch(answered, sqlstate::is_answer).await;
        // What cannot answer now, or is no primary any more, may stay so.
        if matches!(result, Err(StoreError::Unavailable(_))) {
            *self.state = State::Broken;
        }
        *self.failed |= result.is_err();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_insists_on_the_primary() {
        let alive = "keepalives_idle=10&keepalives_interval=3&keepalives_retries=3";
        assert_eq!(primary_only("postgres://h/d"), format!("postgres://h/d?{alive}&target_session_attrs=read-write"));
        assert_eq!(
            primary_only("postgresql://h/d?target_session_attrs=any&keepalives=0"),
            "postgresql://h/d?target_session_attrs=any&keepalives=0&target_session_attrs=read-write"
        );
        assert_eq!(
            primary_only("host=h dbname=d"),
            "host=h dbname=d keepalives_idle=10 keepalives_interval=3 keepalives_retries=3 target_session_attrs=read-write"
        );
    }
}
