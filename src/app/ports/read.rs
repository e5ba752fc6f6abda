//! Reads: of a snapshot, or of a transaction under its locks.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use crate::{
    app::error::StoreResult,
    domain::{
        api_key::{ApiKey, ApiKeyState},
        authority::Managed,
        directory::{Account, AccountState, Role, RolePermissions, Team, User, UserState},
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::{
            archive::Anchor,
            event::{Event, EventKind, Hash},
            revision::Revision,
        },
        permissions::{catalogue::Catalogue, grants::Grants},
        time::Timestamp,
        token::HashedToken,
        verification::TokenFacts,
    },
};

/// Reads of one snapshot, or of a transaction that holds its locks.
#[async_trait]
pub trait Reader: Send {
    /// Returns the head of the log.
    async fn head(&mut self) -> StoreResult<Revision>;
    /// Returns the head's hash and number.
    async fn head_hash(&mut self) -> StoreResult<(Revision, Hash)>;
    /// Returns what the log was archived up to: the events that are there come after it.
    async fn anchor(&mut self) -> StoreResult<Anchor>;
    /// Returns the database's clock, now (not the transaction's start).
    async fn now(&mut self) -> StoreResult<Timestamp>;
    /// Returns the catalogue.
    async fn catalogue(&mut self) -> StoreResult<Arc<Catalogue>>;
    /// Returns the roles that a new account starts with, in order of id.
    async fn default_roles(&mut self) -> StoreResult<Vec<Role>>;
    /// Returns which of these permission names a key's team scope or a team role names.
    async fn held_on_teams(&mut self, names: &BTreeSet<String>) -> StoreResult<BTreeSet<String>>;
    /// Returns what [`Self::catalogue`], [`Self::now`] and [`Self::token`] say, asked together.
    async fn caller(&mut self, digest: &HashedToken) -> StoreResult<CallerState>;
    /// Returns a token on record, closed under [`Self::catalogue`].
    async fn token(&mut self, digest: &HashedToken) -> StoreResult<Option<TokenFacts>>;
    /// Returns a user as the judge sees it; `None` if unknown, or if its account is deleted.
    async fn user_principal(&mut self, account: &AccountId, user: &UserId) -> StoreResult<Option<UserPrincipal>>;
    /// Returns an account, deleted ones included.
    async fn account(&mut self, account: &AccountId) -> StoreResult<Option<Account>>;
    /// Accounts that are not deleted, `system` excluded, in order of id.
    async fn accounts(&mut self, page: &Page<AccountId>) -> StoreResult<Vec<Account>>;
    /// Returns a key, deleted ones included, with its last use.
    async fn api_key(&mut self, account: &AccountId, key: KeyId) -> StoreResult<Option<ApiKey>>;
    /// Keys that `visible` lets see (M3), filtered after, newest first, with their last use: those among the first
    /// `rows_max` rows, on account or teams. A team to filter by must be one that `visible` has.
    async fn api_keys(
        &mut self,
        account: &AccountId,
        visible: &Managed,
        filter: &ApiKeyFilter,
        page: &Page<KeyId>,
        rows_max: u32,
    ) -> StoreResult<ScannedPage<ApiKey, KeyId>>;
    /// Counts the keys, deleted ones excluded, whose team scope names a team, up to `most`.
    async fn api_keys_on_team(&mut self, account: &AccountId, team: &TeamId, most: u32) -> StoreResult<u32>;
    /// Counts the tokens of a key that are on record, ended ones included, up to `most`.
    async fn tokens_of_api_key(&mut self, key: KeyId, most: u32) -> StoreResult<u32>;
    /// Accounts with something that [`Tx::purge`](super::Tx::purge) removes, the first in order of id.
    async fn purging_accounts(&mut self, limit: u32) -> StoreResult<Vec<AccountId>>;
    /// Keys deleted before a moment, the oldest first, each with its account.
    async fn api_keys_due(&mut self, before: Timestamp, limit: u32) -> StoreResult<Vec<(AccountId, KeyId)>>;
    /// Returns a team.
    async fn team(&mut self, account: &AccountId, team: &TeamId) -> StoreResult<Option<Team>>;
    /// Teams in order of id.
    async fn teams(&mut self, account: &AccountId, page: &Page<TeamId>) -> StoreResult<Vec<Team>>;
    /// Returns those of some teams that the account does not have.
    async fn missing_teams(&mut self, account: &AccountId, teams: &BTreeSet<TeamId>) -> StoreResult<BTreeSet<TeamId>>;
    /// Returns a role.
    async fn role(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<Option<Role>>;
    /// Roles in order of id.
    async fn roles(&mut self, account: &AccountId, page: &Page<RoleId>) -> StoreResult<Vec<Role>>;
    /// Reports whether a user has the role.
    async fn role_in_use(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<bool>;
    /// Returns a user.
    async fn user(&mut self, account: &AccountId, user: &UserId) -> StoreResult<Option<User>>;
    /// Users in order of id.
    async fn users(&mut self, account: &AccountId, page: &Page<UserId>) -> StoreResult<Vec<User>>;
    /// Events in order of number, with their links: those among the first `rows_max` rows, and no more than
    /// some megabytes of them (at least one).
    async fn events(
        &mut self,
        filter: &EventFilter,
        page: &Page<i64>,
        rows_max: u32,
    ) -> StoreResult<ScannedPage<StoredEvent, Revision>>;
}

/// What a caller is judged by.
pub struct CallerState {
    /// The catalogue.
    pub catalogue: Arc<Catalogue>,
    /// The database's clock.
    pub now: Timestamp,
    /// The caller's token, closed under the catalogue; `None` if it is not on record.
    pub token: Option<TokenFacts>,
    /// What its key was granted, by name: what a cached entry has no room for.
    pub granted: Grants,
}

/// A user as the judge sees it.
#[derive(Clone, Debug)]
pub struct UserPrincipal {
    /// The user's state.
    pub state: UserState,
    /// The state of its account.
    pub account_state: AccountState,
    /// Its roles' permissions, each with the team it is held on, if any.
    pub roles: Vec<(RolePermissions, Option<TeamId>)>,
}

/// A page of a list: how many, after which id.
#[derive(Clone, Debug)]
pub struct Page<Cursor> {
    /// How many at most.
    pub limit: u32,
    /// Only what comes after it in the list's order; `None` for the first page.
    pub after: Option<Cursor>,
}

impl<Cursor: Clone> Page<Cursor> {
    /// Returns the page to ask the store for: one more item shows whether another page follows.
    pub(in crate::app) fn with_one_more(&self) -> Self {
        Self { limit: self.limit + 1, after: self.after.clone() }
    }
}

/// What a bounded scan of the rows of a list found.
///
/// A scan has a share of rows: however few of them pass the filter, it ends there and says how far it came, so that
/// the next one goes on behind it.
#[derive(Clone, Debug)]
pub struct ScannedPage<T, Cursor> {
    /// In the list's order, at most as many as were asked for.
    pub items: Vec<T>,
    /// The last row examined, if the scan ended for any other reason than the list's end or enough items. The caller
    /// may see that row, or it may see all that there is (M8).
    pub looked_through: Option<Cursor>,
}

/// Which keys a list wants.
#[derive(Clone, Debug, Default)]
pub struct ApiKeyFilter {
    /// Keys whose team scope names it.
    pub team_id: Option<TeamId>,
    /// Keys that were granted it by name, at either scope.
    pub permission: Option<String>,
    /// Keys in one of these states; empty means any.
    pub states: BTreeSet<ApiKeyState>,
    /// Include deleted keys.
    pub show_deleted: bool,
}

/// Which events a list wants.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Events of one account.
    pub account_id: Option<AccountId>,
    /// Events of these kinds; empty means any.
    pub kinds: BTreeSet<EventKind>,
    /// Events whose target or affected keys include it.
    pub key_id: Option<KeyId>,
}

/// A stored event with its link, as the log has it.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// The epoch in the row's own column.
    pub epoch: i64,
    /// The number in the row's own column.
    pub number: i64,
    /// The exact hashed bytes.
    pub payload: Vec<u8>,
    /// The link.
    pub hash: Hash,
    /// The event decoded from the bytes; `None` if this build cannot read its format.
    pub event: Option<Event>,
    /// True if every indexed column equals what the bytes say, and the details what they commit to.
    pub columns_match: bool,
}

impl StoredEvent {
    /// Returns its place in the log, as the row's own columns have it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision { epoch: self.epoch, number: self.number }
    }
}
