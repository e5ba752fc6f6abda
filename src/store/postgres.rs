//! `PostgresStore`: implements the ports of `app` and `verify`, and answers what the command line asks.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};
use tracing::Instrument;
use uuid::Uuid;

use super::connection::pool::LaneSizes;
use super::{
    connection::{
        self,
        pool::Pools,
        pooled::{Connection, run},
    },
    log, migrate,
    objects::{self, catalogue::CatalogueCache},
    replica,
    session::{self, DatabaseSession},
};
use crate::{
    app::{
        error::StoreError,
        ports::{Lane, Locks, Reader, Registered, Replicas, Store, StoreResult, Tx, UsageMark},
    },
    domain::{
        permissions::catalogue::Catalogue,
        time::Timestamp,
        token::{HashedToken, Pepper},
    },
    verify::primary::{Acknowledged, Acknowledgement, Fill, Head, LogEntry, Primary, Registration, Sent, Unavailable},
};

/// Says how to reach the database.
#[derive(Clone)]
pub struct StoreOptions {
    /// The database's URL. Connections add the demand for a primary.
    pub url: String,
    /// Connections of each lane, at most.
    pub sizes: LaneSizes,
    /// The time limit for getting a connection, for connecting, and for each statement.
    pub timeout: Duration,
    /// Ids of the peppers that tokens are hashed with; the first that every replica has is minted under.
    pub pepper_ids: Vec<String>,
    /// The runtime that drives the connections. It must outlive the store's use.
    pub runtime: Handle,
    /// The runtime that drives the connections of reads, whose answers may be large. It must outlive them.
    pub bulk: Handle,
}

/// The store on PostgreSQL. Cheap to clone: clones share the pools.
#[derive(Clone)]
pub struct PostgresStore {
    pools: Pools,
    catalogue: Arc<CatalogueCache>,
    url: String,
    pepper_ids: Arc<[String]>,
    runtime: Handle,
    begin: Arc<str>,
}

impl fmt::Debug for StoreOptions {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("sizes", &self.sizes)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Builds the store. Connections are made when they are needed: while the database is down, calls are
    /// UNAVAILABLE, and the server still starts.
    ///
    /// # Errors
    /// [`StoreError::Bug`] if a pool cannot be made of these options.
    pub fn connect(options: StoreOptions) -> StoreResult<Self> {
        let StoreOptions { url, sizes, timeout, pepper_ids, runtime, bulk } = options;
        let pools = Pools::new(&url, sizes, timeout, runtime.clone(), bulk)?;
        let begin = session::begin_sql(timeout).into();
        Ok(Self { pools, catalogue: Arc::default(), url, pepper_ids: pepper_ids.into(), runtime, begin })
    }

    /// Compares the database's schema with this build's.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be asked.
    pub async fn schema_status(&self) -> StoreResult<migrate::SchemaStatus> {
        let mut connection = self.pools.lane(Lane::Upkeep).await?;
        run!(connection, conn => migrate::schema_status(conn))
    }

    /// Reads what the role that the store connects as may do to the log beyond appending.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be asked.
    pub async fn powers(&self) -> StoreResult<objects::powers::Powers> {
        let mut connection = self.pools.lane(Lane::Upkeep).await?;
        run!(connection, conn => objects::powers::read(conn))
    }

    /// Records which database this is, unless that is on record already: `identity` compares with it from then on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be asked.
    pub async fn record_identity(&self) -> StoreResult<()> {
        let mut connection = self.pools.lane(Lane::Upkeep).await?;
        if let Some(identity) = run!(connection, conn => connection::identity::record(conn))? {
            tracing::info!(identity, "the database's identity is on record now");
        }
        Ok(())
    }

    /// Registers the check values of peppers whose ids are new, and refuses one whose id is known
    /// with another secret: then none is registered, or a server with the wrong secrets would bind them to
    /// their ids for good.
    ///
    /// # Errors
    /// [`replica::peppers::PepperError`].
    pub async fn register_peppers(&self, peppers: &[Pepper]) -> Result<(), replica::peppers::PepperError> {
        let mut connection = self.pools.lane(Lane::Upkeep).await?;
        connection.begin("BEGIN").await?;
        let stored = run!(connection, conn => replica::peppers::register(conn, peppers))?;
        // Dropped without commit, the transaction is rolled back.
        replica::peppers::check(peppers, &stored)?;
        Ok(connection.commit().await?)
    }

    /// Lists the ids of peppers that live tokens need and that are not configured: while there are any, this
    /// replica could take a good token for an unknown one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it cannot be asked.
    pub async fn missing_peppers(&self) -> StoreResult<Vec<String>> {
        self.missing_peppers_by(self.pools.lane(Lane::Upkeep).await?).await
    }

    async fn missing_peppers_by(&self, mut connection: Connection) -> StoreResult<Vec<String>> {
        if !run!(connection, conn => replica::peppers::knows_others(conn, &self.pepper_ids))? {
            return Ok(Vec::new());
        }
        connection.begin(&self.begin).await?;
        let missing = run!(connection, conn => replica::peppers::missing(conn, &self.pepper_ids))?;
        connection.commit().await?;
        Ok(missing)
    }

    /// Evicts replicas without waiting for their leases. Only for those whose process is known, by its name, to have
    /// ended: for any other this would break V1.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be asked.
    pub async fn evict_dead_replicas(&self, is_dead: impl Fn(&str) -> bool + Send) -> StoreResult<()> {
        let mut connection = self.pools.lane(Lane::Upkeep).await?;
        let rows = run!(connection, conn => replica::replicas::names(conn))?;
        for (incarnation, renewal_no, name) in rows {
            if is_dead(&name) {
                run!(connection, conn => replica::replicas::evict(conn, incarnation, renewal_no))?;
            }
        }
        Ok(())
    }

    /// Starts a task that wakes `notify` whenever a mutation commits. This is only a hint: the follower
    /// also polls. Abort the task to end it.
    #[must_use]
    pub fn listen(&self, notify: Arc<Notify>) -> JoinHandle<()> {
        self.runtime.spawn(connection::listen::run(self.url.clone(), self.pools.timeout(), notify))
    }

    /// Closes the pools; from then on every call is UNAVAILABLE.
    pub fn close(&self) {
        self.pools.close();
    }

    async fn session(&self, lane: Lane, name: &'static str, begin: &str) -> StoreResult<DatabaseSession> {
        let mut connection = self.pools.lane(lane).await?;
        connection.begin(begin).await?;
        Ok(DatabaseSession::new(connection, self.catalogue.clone(), self.pepper_ids.clone(), name))
    }

    async fn fill_now(&self, digests: &[HashedToken], sent: &Sent<'_>) -> StoreResult<Fill> {
        let mut connection = self.pools.misses().await?;
        sent.mark();
        let snapshot = run!(connection, conn => replica::fill::read(conn, digests, &self.pepper_ids))?;
        if let Some(catalogue) = snapshot.known_catalogue(&self.catalogue) {
            return snapshot.into_fill(catalogue).map_err(connection::sqlstate::error);
        }
        // The catalogue changed. Read it and the token again in one snapshot, or the sets would be
        // closed under a catalogue of another revision than the fill claims.
        sent.mark();
        connection.begin(session::SNAPSHOT_BEGIN_SQL).await?;
        let snapshot = run!(connection, conn => replica::fill::read(conn, digests, &self.pepper_ids))?;
        let (_, catalogue) = run!(connection, conn => self.catalogue.load(conn))?;
        connection.rollback().await?;
        snapshot.into_fill(catalogue).map_err(connection::sqlstate::error)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn snapshot(&self, lane: Lane) -> StoreResult<Box<dyn Reader>> {
        let span = tracing::debug_span!("store.snapshot");
        Ok(Box::new(self.session(lane, "snapshot", session::SNAPSHOT_BEGIN_SQL).instrument(span).await?))
    }

    async fn known_away(&self) -> StoreError {
        self.pools.availability().known_away().await
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    async fn begin(&self, lane: Lane, name: &'static str, notify: bool, locks: &Locks) -> StoreResult<Box<dyn Tx>> {
        let span = tracing::debug_span!("store.begin", transaction = name);
        let begin = async {
            let connection = self.pools.lane(lane).await?;
            let mut session = DatabaseSession::new(connection, self.catalogue.clone(), self.pepper_ids.clone(), name);
            session.notify = notify;
            session.open(&self.begin, locks).await?;
            Ok::<_, StoreError>(session)
        };
        Ok(Box::new(begin.instrument(span).await?))
    }

    async fn record_usage(&self, batch: &[UsageMark]) -> StoreResult<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut session = self.session(Lane::Upkeep, "record_usage", session::BEGIN_USAGE_SQL).await?;
        run!(session, conn => replica::usage::record(conn, batch))?;
        session.connection.commit().await
    }

    async fn forget_ended_tokens(&self, before: Timestamp, limit: u32) -> StoreResult<u32> {
        let mut session = self.session(Lane::Upkeep, "forget_ended_tokens", &self.begin).await?;
        let forgotten = run!(session, conn => objects::secrets::forget_ended(conn, before, limit))?;
        session.connection.commit().await?;
        Ok(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }
}

#[async_trait]
impl Replicas for PostgresStore {
    async fn replicas(&self) -> StoreResult<Registered> {
        let mut connection = self.pools.barrier().await?;
        run!(connection, conn => replica::replicas::list(conn))
    }

    async fn evict_replica(&self, incarnation: Uuid, renewal_no: i64) -> StoreResult<bool> {
        let mut connection = self.pools.barrier().await?;
        run!(connection, conn => replica::replicas::evict(conn, incarnation, renewal_no))
    }
}

#[async_trait]
impl Primary for PostgresStore {
    async fn fill(&self, digests: &[HashedToken], sent: &Sent<'_>) -> Result<Fill, Unavailable> {
        self.fill_now(digests, sent).await.map_err(unavailable)
    }

    async fn head(&self, sent: &Sent<'_>) -> Result<Head, Unavailable> {
        let mut connection = self.pools.follower().await.map_err(unavailable)?;
        sent.mark();
        let head = run!(connection, conn => log::events::head(conn)).map_err(unavailable)?;
        self.pools.identity().note(head.is_err());
        head.map_err(|other| Unavailable(other.into()))
    }

    async fn events_after(&self, number: i64, limit: u32) -> Result<Vec<LogEntry>, Unavailable> {
        let mut connection = self.pools.follower().await.map_err(unavailable)?;
        run!(connection, conn => log::events::events_after(conn, number, limit)).map_err(unavailable)
    }

    async fn refresh(&self) -> Result<Arc<Catalogue>, Unavailable> {
        let mut connection = self.pools.misses().await.map_err(unavailable)?;
        run!(connection, conn => self.catalogue.current(conn)).map_err(unavailable)
    }

    async fn catalogue(&self) -> Result<Arc<Catalogue>, Unavailable> {
        let mut connection = self.pools.follower().await.map_err(unavailable)?;
        run!(connection, conn => self.catalogue.current(conn)).map_err(unavailable)
    }

    async fn register(&self, registration: &Registration) -> Result<(), Unavailable> {
        let mut connection = self.pools.follower().await.map_err(unavailable)?;
        run!(connection, conn => replica::replicas::register(conn, registration)).map_err(unavailable)
    }

    async fn acknowledge(&self, acknowledgement: &Acknowledgement) -> Result<Acknowledged, Unavailable> {
        let mut connection = self.pools.follower().await.map_err(unavailable)?;
        run!(connection, conn => replica::replicas::acknowledge(conn, acknowledgement)).map_err(unavailable)
    }

    async fn missing_peppers(&self) -> Result<Vec<String>, Unavailable> {
        let connection = self.pools.follower().await.map_err(unavailable)?;
        self.missing_peppers_by(connection).await.map_err(unavailable)
    }

    async fn deregister(&self, incarnation: Uuid) -> Result<(), Unavailable> {
        let mut connection = self.pools.follower().await.map_err(unavailable)?;
        run!(connection, conn => replica::replicas::deregister(conn, incarnation)).map_err(unavailable)
    }
}

/// Maps every failure of the store to "cannot know": it never counts as the absence of a token (V2).
fn unavailable(error: StoreError) -> Unavailable {
    Unavailable(error.into())
}
