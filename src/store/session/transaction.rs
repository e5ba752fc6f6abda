//! A mutation's transaction (`src/DESIGN.md`, Storage): lock, read, change, append, commit.
//!
//! READ COMMITTED on purpose, and set explicitly. Locks are taken by the first statements after BEGIN, and the
//! state is read by later ones: each statement sees what was committed before *it* began, hence also
//! what the holder of the lock had committed while this transaction waited. A statement that locked
//! and read at once, or any stricter isolation, would judge the state from before the wait (M9).

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use async_trait::async_trait;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::future::join;
use tracing::Instrument;

use super::{
    prefetch::Prefetched,
    snapshot::{DatabaseSession, planned_by_indexes},
};
use crate::{
    app::{
        error::StoreError,
        ports::{Append, Erased, Locks, NewSecret, PersonalDataOf, Purged, StoreResult, TeamRemoval, Tx},
    },
    domain::{
        api_key::ApiKey,
        directory::{Account, Role, Team, User},
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::revision::Revision,
        permissions::catalogue::Permission,
        time::Timestamp,
        token::HashedToken,
    },
    store::{
        connection::pooled::run,
        log::{events, personal},
        objects::{accounts, api_keys, catalogue, roles, secrets, teams, users},
        operator_reads, purge,
        replica::peppers,
    },
};

/// Returns BEGIN and the settings, in one round trip. `synchronous_commit` is raised to `on`, the least that
/// survives the loss of the primary; only `remote_apply` is stronger and is kept. The server's limits
/// lie below the client's, so that a wait ends with an error that says why.
pub fn begin_sql(timeout: Duration) -> String {
    let millis = timeout.as_millis().max(4);
    let (lock, statement, idle) = (millis / 2, millis * 3 / 4, millis * 2);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SELECT set_config('synchronous_commit', \
         CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), \
         set_config('lock_timeout', '{lock}ms', true), set_config('statement_timeout', '{statement}ms', true), \
         set_config('idle_in_transaction_session_timeout', '{idle}ms', true); {}",
        planned_by_indexes!()
    )
}

/// BEGIN for usage marks: they may be lost, and must not wait long for any lock (K9).
pub const BEGIN_USAGE_SQL: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
     SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '100ms', true), \
     set_config('statement_timeout', '2s', true)";

/// Returns the lock statements, one after the other in one text: the catalogue, then accounts in order
/// of id. Each judge holds the catalogue against a change; an account's change holds its row against
/// every judge.
fn lock_sql(locks: &Locks) -> StoreResult<String> {
    let catalogue = if locks.catalogue_exclusive { "UPDATE" } else { "SHARE" };
    let mut sql = format!("SELECT FROM catalogue_head FOR {catalogue}");
    let shared = locks.shared.iter().map(|account| (account, "SHARE"));
    let exclusive = locks.exclusive.iter().map(|account| (account, "NO KEY UPDATE"));
    // Exclusive comes second and wins: taking a share first and raising it could deadlock.
    let accounts: BTreeMap<&AccountId, &str> = shared.chain(exclusive).collect();
    for (account, mode) in accounts {
        let id = literal(account)?;
        write!(sql, "; SELECT FROM accounts WHERE account_id = {id} FOR {mode}").expect("a String takes every write");
    }
    Ok(sql)
}

/// Returns an account id as a literal. Several statements in one round trip take no bound values, so this
/// relies on the ids' alphabet, which has neither quotes nor backslashes, and holds it to that.
fn literal(account: &AccountId) -> StoreResult<String> {
    AccountId::parse("account_id", account.as_str())
        .map(|account| format!("'{account}'"))
        .map_err(|malformed| StoreError::Bug(malformed.into()))
}

impl DatabaseSession {
    /// Opens the transaction, takes the locks and prefetches: one round trip.
    pub(crate) async fn open(&mut self, begin: &str, locks: &Locks) -> StoreResult<()> {
        self.changes_catalogue = locks.catalogue_exclusive;
        let sql = format!("{begin}; {}", lock_sql(locks)?);
        let (cache, changes) = (self.catalogue.clone(), self.changes_catalogue);
        let opened = run!(self, conn => async {
            let conn: &AsyncPgConnection = conn;
            let mut locking = conn;
            // The first to be polled, and a text that needs no preparation: nothing is sent before it (M9).
            let locked = locking.batch_execute(&sql);
            let (locked, read) = join(locked, Prefetched::read(conn, &cache, changes, &locks.prefetch)).await;
            locked.and(read)
        });
        self.prefetched = self.connection.begun(opened)?;
        Ok(())
    }
}

#[async_trait]
impl Tx for DatabaseSession {
    async fn minting_pepper(&mut self) -> StoreResult<Option<String>> {
        let configured = self.pepper_ids.clone();
        run!(self, conn => peppers::choose(conn, &configured))
    }

    async fn insert_api_key(&mut self, key: &ApiKey, secret: &NewSecret) -> StoreResult<()> {
        run!(self, conn => api_keys::insert(conn, key, secret))
    }

    async fn update_api_key(&mut self, before: &ApiKey, after: &ApiKey) -> StoreResult<()> {
        run!(self, conn => api_keys::update(conn, before, after))
    }

    async fn rotate_api_key(
        &mut self,
        after: &ApiKey,
        secret: &NewSecret,
        now: Timestamp,
        retiring_end: Timestamp,
    ) -> StoreResult<()> {
        run!(self, conn => secrets::rotate(conn, after, secret, now, retiring_end))
    }

    async fn end_retiring_tokens(&mut self, key: KeyId, end: Timestamp) -> StoreResult<()> {
        run!(self, conn => secrets::end_retiring(conn, key, end))
    }

    async fn note_presented(&mut self, digest: &HashedToken, now: Timestamp) -> StoreResult<bool> {
        run!(self, conn => secrets::note_presented(conn, digest, now))
    }

    async fn note_operator_read(&mut self, key: KeyId, account: &AccountId, now: Timestamp) -> StoreResult<bool> {
        run!(self, conn => operator_reads::note(conn, key, account, now))
    }

    async fn put_account(&mut self, account: &Account) -> StoreResult<()> {
        run!(self, conn => accounts::put(conn, account))
    }

    async fn delete_account(&mut self, account: &AccountId, now: Timestamp) -> StoreResult<Vec<KeyId>> {
        let keys = run!(self, conn => api_keys::delete_all(conn, account, now))?;
        run!(self, conn => accounts::delete(conn, account, now, keys.len()))?;
        Ok(keys)
    }

    async fn deletion_size(&mut self, account: &AccountId, team: Option<&TeamId>, most: u32) -> StoreResult<u64> {
        run!(self, conn => purge::size(conn, account, team, most))
    }

    async fn begin_account_purge(&mut self, account: &AccountId, now: Timestamp) -> StoreResult<()> {
        run!(self, conn => accounts::begin_purge(conn, account, now))
    }

    async fn begin_team_purge(&mut self, account: &AccountId, team: &TeamId) -> StoreResult<()> {
        run!(self, conn => purge::begin_team(conn, account, team))
    }

    async fn purge(
        &mut self,
        account: &AccountId,
        team: Option<&TeamId>,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Purged> {
        match team {
            Some(team) => run!(self, conn => purge::team(conn, account, team, now, limit)),
            None => run!(self, conn => purge::account(conn, account, now, limit)),
        }
    }

    async fn erase_api_keys(
        &mut self,
        account: &AccountId,
        keys: &[KeyId],
        before: Timestamp,
        rows_max: u32,
    ) -> StoreResult<Vec<KeyId>> {
        run!(self, conn => purge::erase(conn, account, keys, before, rows_max))
    }

    async fn put_teams(&mut self, account: &AccountId, teams: &[Team]) -> StoreResult<()> {
        run!(self, conn => teams::put(conn, account, teams))
    }

    async fn delete_team(&mut self, account: &AccountId, team: &TeamId, now: Timestamp) -> StoreResult<TeamRemoval> {
        run!(self, conn => teams::delete(conn, account, team, now))
    }

    async fn put_roles(&mut self, account: &AccountId, roles: &[Role]) -> StoreResult<()> {
        run!(self, conn => roles::put(conn, account, roles))
    }

    async fn delete_role(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<()> {
        run!(self, conn => roles::delete(conn, account, role))
    }

    async fn put_users(&mut self, account: &AccountId, users: &[User]) -> StoreResult<()> {
        run!(self, conn => users::put(conn, account, users))
    }

    async fn delete_user(&mut self, account: &AccountId, user: &UserId) -> StoreResult<()> {
        run!(self, conn => users::delete(conn, account, user))
    }

    async fn put_catalogue(&mut self, permissions: &[Permission], default_roles: &[Role]) -> StoreResult<()> {
        self.changes_catalogue = true;
        run!(self, conn => catalogue::put(conn, permissions, default_roles))
    }

    async fn erase_personal_data(&mut self, of: &PersonalDataOf, limit: u32) -> StoreResult<Erased> {
        run!(self, conn => personal::erase(conn, of, limit))
    }

    async fn start_epoch(&mut self) -> StoreResult<Revision> {
        run!(self, conn => events::start_epoch(conn))
    }

    async fn append(&mut self, appends: Vec<Append>) -> StoreResult<Vec<Revision>> {
        let (notify, not_before) = (self.notify, self.time_read);
        let span = tracing::debug_span!("store.append", transaction = self.name, events = appends.len());
        let appended =
            async { run!(self, conn => events::append(conn, appends, not_before, notify)) }.instrument(span).await;
        // The hint may be what was refused, for whatever reason: then it is tried once more without it.
        appended.map_err(|error| match error {
            StoreError::Bug(source) if notify => StoreError::NotifyFailed(source),
            other => other,
        })
    }

    async fn commit(self: Box<Self>) -> StoreResult<()> {
        let span = tracing::debug_span!("store.commit", transaction = self.name);
        self.connection.commit().instrument(span).await
    }

    async fn rollback(self: Box<Self>) -> StoreResult<()> {
        self.connection.rollback().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ports::Prefetch;

    fn ids(ids: &[&str]) -> std::collections::BTreeSet<AccountId> {
        ids.iter().map(|id| AccountId::from_stored(id)).collect()
    }

    #[test]
    fn locks_are_taken_in_one_order_and_the_stronger_wins() {
        let locks = Locks {
            catalogue_exclusive: false,
            shared: ids(&["z", "m"]),
            exclusive: ids(&["a", "m"]),
            prefetch: Prefetch::default(),
        };
        assert_eq!(
            lock_sql(&locks).expect("well-formed"),
            "SELECT FROM catalogue_head FOR SHARE; \
             SELECT FROM accounts WHERE account_id = 'a' FOR NO KEY UPDATE; \
             SELECT FROM accounts WHERE account_id = 'm' FOR NO KEY UPDATE; \
             SELECT FROM accounts WHERE account_id = 'z' FOR SHARE"
        );
        let locks = Locks { catalogue_exclusive: true, ..Locks::default() };
        assert_eq!(lock_sql(&locks).expect("well-formed"), "SELECT FROM catalogue_head FOR UPDATE");
    }

    #[test]
    fn an_id_that_would_break_out_of_its_literal_is_refused() {
        let locks = Locks { exclusive: ids(&["x' OR true"]), ..Locks::default() };
        assert!(matches!(lock_sql(&locks), Err(StoreError::Bug(_))));
    }
}
