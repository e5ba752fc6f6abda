//! Pools connections in lanes: each lane has a pool of its own, so that no load of one kind of work delays another,
//! least of all a revocation or the lease.
//!
//! A connection's driver is a task of the runtime that made it, so every connection of a lane is made on one given
//! runtime, whatever runtime asks: those of reads, whose answers may be large, on that of the bulk threads. Every
//! connection insists on the primary: a standby could answer from a state before a revocation.

use std::time::Duration;

use deadpool::managed::QueueMode;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool::Pool},
};
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{
    availability::Availability,
    connect::{establish, primary_only},
    identity::{self, KnownIdentity},
    pooled::Connection,
    sqlstate,
};
use crate::app::{
    error::StoreError,
    ports::{Lane, StoreResult},
};

/// Holds a pool for each lane. Cheap to clone.
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

/// Bounds the connections of each lane.
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

/// The follower's own connections, so that no other work can cost the lease. One for its rounds, one for the barrier's
/// polls and one for an eviction: each of these runs one at a time.
const FOLLOWER_SIZE_MAX: usize = 3;

// === impl Pools ===

impl Pools {
    /// Builds pools of at most as many connections each as `sizes` says; a connection is made when it is needed.
    pub fn new(url: &str, sizes: LaneSizes, timeout: Duration, runtime: Handle, bulk: Handle) -> StoreResult<Self> {
        let availability = Availability::new(primary_only(url), timeout, runtime.clone());
        let pool = |size_max: usize, work: ConnectionUse, runtime: &Handle| {
            let mut config = ManagerConfig::default();
            // A connection that is known to be clean needs no round trip to show it; one whose
            // server is gone is noticed by its driver.
            config.recycling_method = RecyclingMethod::Fast;
            let (runtime, availability) = (runtime.clone(), availability.clone());
            config.custom_setup = Box::new(move |url| {
                let (url, availability) = (url.to_owned(), availability.clone());
                let made = runtime.spawn(async move {
                    availability.watch(connect(url, timeout, work), sqlstate::connecting_is_answer).await
                });
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
            narrowing: pool(sizes.narrowing, ConnectionUse::OfCallers, &runtime)?,
            callers: pool(sizes.callers, ConnectionUse::OfCallers, &runtime)?,
            mutations: pool(sizes.mutations, ConnectionUse::OfCallers, &runtime)?,
            reads: pool(sizes.reads, ConnectionUse::OfCallers, &bulk)?,
            watches: pool(sizes.watches, ConnectionUse::OfCallers, &runtime)?,
            misses: pool(sizes.misses, ConnectionUse::OfCallers, &runtime)?,
            upkeep: pool(sizes.upkeep, ConnectionUse::OfItself, &runtime)?,
            follower: pool(FOLLOWER_SIZE_MAX, ConnectionUse::OfItself, &runtime)?,
            availability,
            identity: KnownIdentity::default(),
            timeout,
            runtime,
        })
    }

    /// Takes a connection of a lane.
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

    /// Takes a connection for verification misses.
    pub async fn misses(&self) -> StoreResult<Connection> {
        self.identity.check()?;
        self.get_if_there(&self.misses).await
    }

    /// Takes a connection for the barrier's polls and evictions.
    pub async fn barrier(&self) -> StoreResult<Connection> {
        self.get_if_there(&self.follower).await
    }

    /// Takes a connection for the follower, which asks even while the database is believed to be down.
    pub async fn follower(&self) -> StoreResult<Connection> {
        self.get(&self.follower).await
    }

    /// Returns the availability of the database: whether it is known to be away.
    pub fn availability(&self) -> &Availability {
        &self.availability
    }

    /// Returns the known identity: whether the database is the one that its log was written in.
    pub fn identity(&self) -> &KnownIdentity {
        &self.identity
    }

    /// Returns the time limit of one statement.
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
        Ok(Connection::new(object, timeout, runtime, availability))
    }

    /// Closes the pools: every later request for a connection is UNAVAILABLE.
    pub fn close(&self) {
        self.availability.close();
        let Self { narrowing, callers, mutations, reads, watches, misses, upkeep, follower, .. } = self;
        for pool in [narrowing, callers, mutations, reads, watches, misses, upkeep, follower] {
            pool.close();
        }
    }
}

/// Says what a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionUse {
    /// Work that a caller is answered by: only on the database that the log was written in.
    OfCallers,
    /// The follower's reads of the head, which find out which database it is; upkeep and operators' commands, one of
    /// which accepts another database.
    OfItself,
}

/// Opens a connection, and checks the database's identity if the use demands it.
async fn connect(url: String, timeout: Duration, work: ConnectionUse) -> ConnectionResult<AsyncPgConnection> {
    let connect = async {
        let mut connection = establish(url, timeout, Some(timeout)).await?;
        if work == ConnectionUse::OfCallers {
            let checked = connection.batch_execute(identity::CHECK_SQL).await;
            checked.map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(connection)
    };
    let late = || Err(ConnectionError::BadConnection("connecting took longer than the time limit".into()));
    tokio::time::timeout(timeout, connect).await.unwrap_or_else(|_| late())
}
