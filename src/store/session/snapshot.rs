//! A database session: one connection in one transaction, and every read on it.
//!
//! [`PostgresStore`](crate::store::PostgresStore) opens one REPEATABLE READ, READ ONLY;
//! a mutation's (see `transaction`) reads the same way after its locks.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;

use super::prefetch::{self, Prefetched};
use crate::{
    app::{
        error::StoreError,
        ports::{
            ApiKeyFilter, CallerState, EventFilter, Page, Reader, ScannedPage, StoreResult, StoredEvent, UserPrincipal,
        },
    },
    domain::{
        api_key::ApiKey,
        authority::Managed,
        directory::{Account, Role, Team, User},
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::{archive::Anchor, event::Hash, revision::Revision},
        permissions::catalogue::Catalogue,
        time::Timestamp,
        token::HashedToken,
        verification::TokenFacts,
    },
    store::{
        connection::{
            pooled::{Connection, StatementRun, run},
            sqlstate,
        },
        log::{anchor, event_list, events},
        objects::{
            accounts, api_keys,
            catalogue::{self, CatalogueCache},
            key_list, roles, secrets, teams, users,
        },
        purge,
        replica::fill,
    },
    verify::primary::Head,
};

/// How the statements of a session are planned.
///
/// Each reads few rows, through an index. Where the statistics show few rows of an account, the planner would rather
/// gather all of them by a bitmap and sort them; and that plan stays prepared, however large the account has grown.
/// Where they show many, it expects to meet one soon wherever it starts to read the table. Hence neither bitmaps nor
/// scans, and random pages at the cost of sequential ones. Compiling (JIT) never pays off for so few rows.
macro_rules! planned_by_indexes {
    () => {
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL random_page_cost = 1; \
         SET LOCAL jit = off"
    };
}
pub(super) use planned_by_indexes;

/// Opens the snapshot of a reader.
pub const BEGIN_SQL: &str = concat!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ", planned_by_indexes!());

/// Holds one connection in one transaction.
pub struct DatabaseSession {
    pub(crate) connection: Connection,
    pub(crate) catalogue: Arc<CatalogueCache>,
    /// The peppers that may be minted under.
    pub(crate) pepper_ids: Arc<[String]>,
    /// The transaction may change the catalogue: read it past the cache, and never into it.
    pub(super) changes_catalogue: bool,
    /// The commit wakes the followers.
    pub(crate) notify: bool,
    /// The time that the transaction read last: its events are no earlier.
    pub(super) time_read: Option<Timestamp>,
    /// The transaction's name, for traces.
    pub(crate) name: &'static str,
    /// What was read together with the locks.
    pub(super) prefetched: Prefetched,
}

impl DatabaseSession {
    /// Splits into the raw connection and the run of one statement on it.
    pub(in crate::store) fn parts(&mut self) -> (&mut AsyncPgConnection, StatementRun<'_>) {
        self.connection.parts()
    }

    /// Wraps the connection of an open transaction.
    pub(crate) fn new(
        connection: Connection,
        catalogue: Arc<CatalogueCache>,
        pepper_ids: Arc<[String]>,
        name: &'static str,
    ) -> Self {
        Self {
            connection,
            catalogue,
            pepper_ids,
            changes_catalogue: false,
            notify: false,
            time_read: None,
            name,
            prefetched: Prefetched::default(),
        }
    }

    /// Reads the head; fails if the database is another one than the log was written in.
    async fn known_head(&mut self) -> StoreResult<Head> {
        run!(self, conn => events::head(conn))?.map_err(|other| StoreError::Unavailable(other.into()))
    }
}

#[async_trait]
impl Reader for DatabaseSession {
    async fn head(&mut self) -> StoreResult<Revision> {
        Ok(self.known_head().await?.revision)
    }

    async fn head_hash(&mut self) -> StoreResult<(Revision, Hash)> {
        self.known_head().await.map(|head| (head.revision, head.hash))
    }

    async fn anchor(&mut self) -> StoreResult<Anchor> {
        run!(self, conn => anchor::read(conn))
    }

    async fn now(&mut self) -> StoreResult<Timestamp> {
        let now = run!(self, conn => events::now(conn))?;
        self.time_read = Some(now);
        Ok(now)
    }

    async fn catalogue(&mut self) -> StoreResult<Arc<Catalogue>> {
        if self.changes_catalogue {
            run!(self, conn => catalogue::load(conn)).map(|(_, catalogue)| catalogue)
        } else {
            run!(self.connection, conn => self.catalogue.current(conn))
        }
    }

    async fn default_roles(&mut self) -> StoreResult<Vec<Role>> {
        run!(self, conn => catalogue::default_roles(conn))
    }

    async fn held_on_teams(&mut self, names: &BTreeSet<String>) -> StoreResult<BTreeSet<String>> {
        run!(self, conn => catalogue::held_on_teams(conn, names))
    }

    async fn caller(&mut self, digest: &HashedToken) -> StoreResult<CallerState> {
        let caller = match self.prefetched.take_caller(digest) {
            Some(caller) => caller,
            None => {
                let (cache, changes) = (self.catalogue.clone(), self.changes_catalogue);
                run!(self, conn => prefetch::caller(conn, &cache, changes, digest))?
            }
        };
        self.time_read = Some(caller.now);
        Ok(caller)
    }

    async fn token(&mut self, digest: &HashedToken) -> StoreResult<Option<TokenFacts>> {
        let snapshot = run!(self, conn => fill::read(conn, std::slice::from_ref(digest), &[]))?;
        let known = if self.changes_catalogue { None } else { snapshot.known_catalogue(&self.catalogue) };
        // Both reads are of one snapshot, or under the lock that keeps the catalogue from changing.
        let catalogue = match known {
            Some(catalogue) => catalogue,
            None => Reader::catalogue(self).await?,
        };
        let fill = snapshot.into_fill(catalogue).map_err(sqlstate::error)?;
        Ok(fill.token.map(|(_, facts)| facts))
    }

    async fn user_principal(&mut self, account: &AccountId, user: &UserId) -> StoreResult<Option<UserPrincipal>> {
        run!(self, conn => users::principal(conn, account, user))
    }

    async fn account(&mut self, account: &AccountId) -> StoreResult<Option<Account>> {
        match self.prefetched.take_account(account) {
            Some(found) => Ok(found),
            None => run!(self, conn => accounts::get(conn, account)),
        }
    }

    async fn accounts(&mut self, page: &Page<AccountId>) -> StoreResult<Vec<Account>> {
        run!(self, conn => accounts::list(conn, page))
    }

    async fn api_key(&mut self, account: &AccountId, key: KeyId) -> StoreResult<Option<ApiKey>> {
        run!(self, conn => api_keys::get(conn, account, key))
    }

    async fn api_keys(
        &mut self,
        account: &AccountId,
        visible: &Managed,
        filter: &ApiKeyFilter,
        page: &Page<KeyId>,
        rows_max: u32,
    ) -> StoreResult<ScannedPage<ApiKey, KeyId>> {
        run!(self, conn => key_list::list(conn, account, visible, filter, page, rows_max))
    }

    async fn api_keys_on_team(&mut self, account: &AccountId, team: &TeamId, most: u32) -> StoreResult<u32> {
        run!(self, conn => api_keys::count_on_team(conn, account, team, most))
    }

    async fn tokens_of_api_key(&mut self, key: KeyId, most: u32) -> StoreResult<u32> {
        run!(self, conn => secrets::count(conn, key, most))
    }

    async fn purging_accounts(&mut self, limit: u32) -> StoreResult<Vec<AccountId>> {
        run!(self, conn => purge::accounts(conn, limit))
    }

    async fn api_keys_due(&mut self, before: Timestamp, limit: u32) -> StoreResult<Vec<(AccountId, KeyId)>> {
        run!(self, conn => purge::due(conn, before, limit))
    }

    async fn team(&mut self, account: &AccountId, team: &TeamId) -> StoreResult<Option<Team>> {
        run!(self, conn => teams::get(conn, account, team))
    }

    async fn teams(&mut self, account: &AccountId, page: &Page<TeamId>) -> StoreResult<Vec<Team>> {
        run!(self, conn => teams::list(conn, account, page))
    }

    async fn missing_teams(&mut self, account: &AccountId, teams: &BTreeSet<TeamId>) -> StoreResult<BTreeSet<TeamId>> {
        match self.prefetched.take_missing_teams(account, teams) {
            Some(missing) => Ok(missing),
            None => run!(self, conn => teams::missing(conn, account, teams)),
        }
    }

    async fn role(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<Option<Role>> {
        run!(self, conn => roles::get(conn, account, role))
    }

    async fn roles(&mut self, account: &AccountId, page: &Page<RoleId>) -> StoreResult<Vec<Role>> {
        run!(self, conn => roles::list(conn, account, page))
    }

    async fn role_in_use(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<bool> {
        run!(self, conn => roles::in_use(conn, account, role))
    }

    async fn user(&mut self, account: &AccountId, user: &UserId) -> StoreResult<Option<User>> {
        run!(self, conn => users::get(conn, account, user))
    }

    async fn users(&mut self, account: &AccountId, page: &Page<UserId>) -> StoreResult<Vec<User>> {
        run!(self, conn => users::list(conn, account, page))
    }

    async fn events(
        &mut self,
        filter: &EventFilter,
        page: &Page<i64>,
        rows_max: u32,
    ) -> StoreResult<ScannedPage<StoredEvent, Revision>> {
        run!(self, conn => event_list::list(conn, filter, page, rows_max))
    }
}
