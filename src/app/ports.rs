//! What the use-cases ask of the store: ports, carried out by `store`.
//!
//! A mutation is one transaction ([`Tx`]): lock, judge, change, append, commit (design, section 2).
//! A read is one snapshot ([`Reader`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::error::StoreError;
use crate::domain::{
    api_key::{ApiKey, ApiKeyState},
    authority::Managed,
    directory::{Account, AccountState, Role, RolePermissions, Team, User, UserState},
    id::{AccountId, KeyId, RoleId, TeamId, UserId},
    log::{
        archive::Anchor,
        event::{Event, EventDraft, EventKind, Hash, Target},
        revision::Revision,
    },
    permissions::{
        catalogue::{Catalogue, Permission},
        grants::Grants,
    },
    time::Timestamp,
    token::HashedToken,
    verification::TokenFacts,
};

/// The result of asking the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// A kind of work with connections of its own, so that it never waits for another kind. Verifications that miss the
/// cache, the follower and the barrier have theirs too, which no use-case chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Mutations that only take authority away.
    Narrowing,
    /// Looking up the users that services act for.
    Callers,
    /// All other mutations.
    Mutations,
    /// Reads.
    Reads,
    /// Reads of open watches.
    Watches,
    /// Housekeeping, and an operator's own commands.
    Upkeep,
}

/// The store.
#[async_trait]
pub trait Store: Replicas {
    /// Opens one snapshot for reading (REPEATABLE READ, read only, on the primary).
    async fn snapshot(&self, lane: Lane) -> StoreResult<Box<dyn Reader>>;

    /// Opens a mutation's transaction (READ COMMITTED, `synchronous_commit` at least `on`) and takes its locks.
    /// Accounts that do not exist are skipped. With `notify`, its commit wakes the followers. Dropped without
    /// commit, it changes nothing.
    async fn begin(&self, lane: Lane, name: &'static str, notify: bool, locks: &Locks) -> StoreResult<Box<dyn Tx>>;

    /// Completes with the error to answer once the database is known to be away; at once if it is. Until it answers
    /// again, whatever is asked fails so, without waiting.
    async fn known_away(&self) -> StoreError;

    /// The runtime that drives the connections. What asks many things of a transaction, one after the other, is best
    /// run there: elsewhere each question and each answer is handed from thread to thread.
    fn runtime(&self) -> &Handle;

    /// Writes a batch of usage marks, sorted by digest; never touches a row that authority locks (K9).
    async fn record_usage(&self, batch: &[UsageMark]) -> StoreResult<()>;

    /// Forgets digests of tokens that ended before `before` (T3), at most `limit`; how many it did. Those of deleted
    /// keys go with their keys ([`Tx::erase_api_keys`]).
    async fn forget_ended_tokens(&self, before: Timestamp, limit: u32) -> StoreResult<u32>;
}

/// The replicas on record.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// The replicas that may answer from their caches, and the head of the log in the same snapshot: for a barrier,
    /// read after its commit.
    async fn replicas(&self) -> StoreResult<Registered>;

    /// Deletes a replica's row if it was not renewed since it was seen with this `renewal_no`; false if
    /// it was, or is gone. Waits for a renewal in flight, and is as durable as a mutation.
    async fn evict_replica(&self, incarnation: Uuid, renewal_no: i64) -> StoreResult<bool>;
}

/// The replicas on record, and the head of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The head of the log.
    pub head: Revision,
    /// The rows in order of incarnation.
    pub rows: Vec<ReplicaRow>,
}

/// A row of `replicas`, as a barrier sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// One life of one process.
    pub incarnation: Uuid,
    /// Goes up with each renewal.
    pub renewal_no: i64,
    /// The revision whose fences are up there; 0.0 until it has read the log.
    pub applied: Revision,
    /// How long it may answer from its cache after a renewal was sent.
    pub lease: Duration,
    /// How much longer it answers from it, saying so.
    pub stale_max: Duration,
}

/// One token's use (K9).
#[derive(Clone, Copy, Debug)]
pub struct UsageMark {
    /// The token.
    pub digest: HashedToken,
    /// Its key.
    pub key_id: KeyId,
    /// When it last answered VALID.
    pub last_used_time: Timestamp,
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
    /// Its place in the log, as the row's own columns have it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision { epoch: self.epoch, number: self.number }
    }
}

/// Whose text is to be erased.
#[derive(Clone, Debug)]
pub struct PersonalDataOf {
    /// In which account.
    pub account_id: AccountId,
    /// Of which object; `None` for all of the account.
    pub target: Option<Target>,
    /// The object, if it is a key.
    pub key_id: Option<KeyId>,
}

/// How much text of people was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Of how many events.
    pub events: u32,
    /// Of how many rows of what is deleted.
    pub rows: u32,
}

/// A page of a list: how many, after which id.
#[derive(Clone, Debug)]
pub struct Page<Cursor> {
    /// How many at most.
    pub limit: u32,
    /// Only what comes after it in the list's order; `None` for the first page.
    pub after: Option<Cursor>,
}

/// What a bounded look at the rows of a list found.
///
/// A look has a share of rows: however few of them pass the filter, it ends there and says how far it came, so that
/// the next one goes on behind it.
#[derive(Clone, Debug)]
pub struct Found<T, Cursor> {
    /// In the list's order, at most as many as were asked for.
    pub items: Vec<T>,
    /// The last row looked at, if the look ended for any other reason than the list's end or enough items. The caller
    /// may see that row, or it may see all that there is (M8).
    pub looked_through: Option<Cursor>,
}

impl<Cursor: Clone> Page<Cursor> {
    /// What the store is asked for: one more item shows whether another page follows.
    pub(super) fn with_one_more(&self) -> Self {
        Self { limit: self.limit + 1, after: self.after.clone() }
    }
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

/// Reads of one snapshot, or of a transaction that holds its locks.
#[async_trait]
pub trait Reader: Send {
    /// The head of the log.
    async fn head(&mut self) -> StoreResult<Revision>;
    /// The head's hash and number.
    async fn head_hash(&mut self) -> StoreResult<(Revision, Hash)>;
    /// What the log was archived up to: the events that are there come after it.
    async fn anchor(&mut self) -> StoreResult<Anchor>;
    /// The database's clock, now (not the transaction's start).
    async fn now(&mut self) -> StoreResult<Timestamp>;
    /// The catalogue.
    async fn catalogue(&mut self) -> StoreResult<Arc<Catalogue>>;
    /// The roles that a new account starts with, in order of id.
    async fn default_roles(&mut self) -> StoreResult<Vec<Role>>;
    /// Which of these permission names a key's team scope or a team role names.
    async fn held_on_teams(&mut self, names: &BTreeSet<String>) -> StoreResult<BTreeSet<String>>;
    /// What [`Self::catalogue`], [`Self::now`] and [`Self::token`] say, asked together.
    async fn caller(&mut self, digest: &HashedToken) -> StoreResult<CallerState>;
    /// A token on record, closed under [`Self::catalogue`].
    async fn token(&mut self, digest: &HashedToken) -> StoreResult<Option<TokenFacts>>;
    /// A user as the judge sees it; `None` if unknown, or if its account is deleted.
    async fn user_principal(&mut self, account: &AccountId, user: &UserId) -> StoreResult<Option<UserPrincipal>>;
    /// An account, deleted ones included.
    async fn account(&mut self, account: &AccountId) -> StoreResult<Option<Account>>;
    /// Accounts that are not deleted, `system` excluded, in order of id.
    async fn accounts(&mut self, page: &Page<AccountId>) -> StoreResult<Vec<Account>>;
    /// A key, deleted ones included, with its last use.
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
    ) -> StoreResult<Found<ApiKey, KeyId>>;
    /// Not-deleted keys whose team scope names a team: how many, at most `most`.
    async fn api_keys_on_team(&mut self, account: &AccountId, team: &TeamId, most: u32) -> StoreResult<u32>;
    /// Tokens of a key that are on record, ended ones included: how many, at most `most`.
    async fn tokens_of_api_key(&mut self, key: KeyId, most: u32) -> StoreResult<u32>;
    /// Accounts with something that [`Tx::purge`] removes, the first in order of id.
    async fn purging_accounts(&mut self, limit: u32) -> StoreResult<Vec<AccountId>>;
    /// Keys deleted before a moment, the oldest first, each with its account.
    async fn api_keys_due(&mut self, before: Timestamp, limit: u32) -> StoreResult<Vec<(AccountId, KeyId)>>;
    /// A team.
    async fn team(&mut self, account: &AccountId, team: &TeamId) -> StoreResult<Option<Team>>;
    /// Teams in order of id.
    async fn teams(&mut self, account: &AccountId, page: &Page<TeamId>) -> StoreResult<Vec<Team>>;
    /// Those of some teams that the account does not have.
    async fn missing_teams(&mut self, account: &AccountId, teams: &BTreeSet<TeamId>) -> StoreResult<BTreeSet<TeamId>>;
    /// A role.
    async fn role(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<Option<Role>>;
    /// Roles in order of id.
    async fn roles(&mut self, account: &AccountId, page: &Page<RoleId>) -> StoreResult<Vec<Role>>;
    /// True if a user has the role.
    async fn role_in_use(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<bool>;
    /// A user.
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
    ) -> StoreResult<Found<StoredEvent, Revision>>;
}

/// What a transaction locks before it judges, always in this order: the catalogue, then accounts in
/// order of id. Every change of an account's keys, teams, roles or users holds its row exclusively;
/// every judge holds at least the shared lock of each account that its caller's authority lives in.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    /// The catalogue for a change; otherwise it is locked against one.
    pub catalogue_exclusive: bool,
    /// Accounts that the caller's authority lives in.
    pub shared: BTreeSet<AccountId>,
    /// Accounts that will change.
    pub exclusive: BTreeSet<AccountId>,
    /// What is read right after.
    pub ahead: Ahead,
}

/// What a transaction is told that it will be asked first, so that it need not be asked one by one. Read under the
/// locks like anything else; whatever is not named here is read when it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    /// For [`Reader::caller`].
    pub caller: Option<HashedToken>,
    /// For [`Reader::account`].
    pub account: Option<AccountId>,
    /// For [`Reader::missing_teams`] of that account.
    pub teams: BTreeSet<TeamId>,
}

/// A token about to be stored.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// Its digest.
    pub digest: HashedToken,
    /// Under which pepper.
    pub pepper_id: String,
}

/// An object whose revision (hence etag) an event sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Keys of an account.
    ApiKeys(AccountId, Vec<KeyId>),
    /// An account.
    Account(AccountId),
    /// A team.
    Team(AccountId, TeamId),
    /// A role.
    Role(AccountId, RoleId),
    /// Roles of an account, all of them: a new account's.
    Roles(AccountId),
    /// A user.
    User(AccountId, UserId),
    /// Users of an account.
    Users(AccountId, Vec<UserId>),
    /// The catalogue.
    Catalogue,
}

/// One event to append, and the objects that it stamps with its revision.
#[derive(Clone, Debug)]
pub struct Append {
    /// The event.
    pub draft: EventDraft,
    /// What it stamps.
    pub stamps: Vec<Stamp>,
}

/// What a deleted team was taken from (A5).
#[derive(Clone, Debug, Default)]
pub struct TeamRemoval {
    /// Keys, deleted ones included, in order.
    pub key_ids: Vec<KeyId>,
    /// Users, in order.
    pub user_ids: Vec<UserId>,
}

/// What a step of a purge removed, and from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Keys that named a deleted team or belonged to a deleted account, in order.
    pub key_ids: Vec<KeyId>,
    /// Users that lost roles or are no more, in order.
    pub user_ids: Vec<UserId>,
    /// Teams that are no more, in order.
    pub team_ids: Vec<TeamId>,
    /// Roles that are no more, in order.
    pub role_ids: Vec<RoleId>,
    /// Nothing is left.
    pub done: bool,
}

/// A mutation's transaction. Its reads see the state that its locks hold still.
#[async_trait]
pub trait Tx: Reader {
    /// The pepper to mint under: the first configured one that every registered replica has; `None` if there is
    /// none. It is in use from the commit on.
    async fn minting_pepper(&mut self) -> StoreResult<Option<String>>;
    /// Stores a new key with its first token, and counts it.
    async fn insert_api_key(&mut self, key: &ApiKey, secret: &NewSecret) -> StoreResult<()>;
    /// Replaces a key's content, state and times; a key becoming DELETED is no longer counted.
    /// Leaves its tokens alone.
    async fn update_api_key(&mut self, before: &ApiKey, after: &ApiKey) -> StoreResult<()>;
    /// Replaces a key's current token: any retiring one ends now at the latest, the current one at
    /// `retiring_end` (K8).
    async fn rotate_api_key(
        &mut self,
        after: &ApiKey,
        secret: &NewSecret,
        now: Timestamp,
        retiring_end: Timestamp,
    ) -> StoreResult<()>;
    /// Ends a key's retiring tokens no later than a moment: its revocation, or an earlier expiry.
    async fn end_retiring_tokens(&mut self, key: KeyId, end: Timestamp) -> StoreResult<()>;
    /// Notes that an ended token was presented; false if that was noted within the last hour (K8).
    async fn note_presented(&mut self, digest: &HashedToken, now: Timestamp) -> StoreResult<bool>;
    /// Notes that a key read an account by the reach of `system.operate`; false if that was noted within the last
    /// hour (A3).
    async fn note_operator_read(&mut self, key: KeyId, account: &AccountId, now: Timestamp) -> StoreResult<bool>;

    /// Creates or replaces an account's row, but never its key count.
    async fn put_account(&mut self, account: &Account) -> StoreResult<()>;
    /// Marks an account deleted, its keys too (and takes their team scopes), and removes its users,
    /// roles and teams; the ids of keys that were not deleted before, in order.
    async fn delete_account(&mut self, account: &AccountId, now: Timestamp) -> StoreResult<Vec<KeyId>>;
    /// How many rows [`Self::delete_account`], or of one team [`Self::delete_team`], would touch: exact up to `most`.
    async fn deletion_size(&mut self, account: &AccountId, team: Option<&TeamId>, most: u32) -> StoreResult<u64>;
    /// Marks an account deleted, in one step whatever it has: to every reader all that is in it is gone, its keys are
    /// DELETED. The rest is left to [`Self::purge`].
    async fn begin_account_purge(&mut self, account: &AccountId, now: Timestamp) -> StoreResult<()>;
    /// Marks a team deleted, in one step whatever names it: to every reader it is gone. The rest is left to
    /// [`Self::purge`].
    async fn begin_team_purge(&mut self, account: &AccountId, team: &TeamId) -> StoreResult<()>;
    /// Removes at most so many rows of what a marked team, or a marked account, still has.
    async fn purge(
        &mut self,
        account: &AccountId,
        team: Option<&TeamId>,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Purged>;
    /// Erases those of some keys that were deleted before a moment, with everything of theirs: at least one, as long as
    /// there is one, and no more than hang on `rows_max` rows. Which ones it did.
    async fn erase_api_keys(
        &mut self,
        account: &AccountId,
        keys: &[KeyId],
        before: Timestamp,
        rows_max: u32,
    ) -> StoreResult<Vec<KeyId>>;
    /// Creates or replaces teams.
    async fn put_teams(&mut self, account: &AccountId, teams: &[Team]) -> StoreResult<()>;
    /// Removes a team from all keys and users, then the team (A5).
    async fn delete_team(&mut self, account: &AccountId, team: &TeamId, now: Timestamp) -> StoreResult<TeamRemoval>;
    /// Creates or replaces roles.
    async fn put_roles(&mut self, account: &AccountId, roles: &[Role]) -> StoreResult<()>;
    /// Removes a role that no user has.
    async fn delete_role(&mut self, account: &AccountId, role: &RoleId) -> StoreResult<()>;
    /// Creates or replaces users with all their roles.
    async fn put_users(&mut self, account: &AccountId, users: &[User]) -> StoreResult<()>;
    /// Removes a user with its roles.
    async fn delete_user(&mut self, account: &AccountId, user: &UserId) -> StoreResult<()>;
    /// Replaces the catalogue and the default roles.
    async fn put_catalogue(&mut self, permissions: &[Permission], default_roles: &[Role]) -> StoreResult<()>;

    /// Erases what people typed from at most `limit` events, and from as many rows of what is deleted.
    async fn erase_personal_data(&mut self, of: &PersonalDataOf, limit: u32) -> StoreResult<Erased>;

    /// Takes the head and starts the next epoch, which the events that are then appended are the first
    /// of; the head as it was.
    async fn start_epoch(&mut self) -> StoreResult<Revision>;
    /// Takes the head, appends the events in order, stamps their objects: the last step before
    /// commit. The revisions, one an event.
    async fn append(&mut self, appends: Vec<Append>) -> StoreResult<Vec<Revision>>;
    /// Commits.
    async fn commit(self: Box<Self>) -> StoreResult<()>;
    /// Gives up; nothing was changed.
    async fn rollback(self: Box<Self>) -> StoreResult<()>;
}
