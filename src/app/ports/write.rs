//! Writes: a mutation's transaction, its locks, and what it changes.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::read::Reader;
use crate::{
    app::error::StoreResult,
    domain::{
        api_key::ApiKey,
        directory::{Account, Role, Team, User},
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::{
            event::{EventDraft, Target},
            revision::Revision,
        },
        permissions::catalogue::Permission,
        time::Timestamp,
        token::HashedToken,
    },
};

/// A mutation's transaction. Its reads see the state that its locks hold still.
#[async_trait]
pub trait Tx: Reader {
    /// Returns the pepper to mint under: the first configured one that every registered replica has; `None` if there is
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
    /// roles and teams. Returns the ids of the keys that were not deleted before, in order.
    async fn delete_account(&mut self, account: &AccountId, now: Timestamp) -> StoreResult<Vec<KeyId>>;
    /// Returns how many rows [`Self::delete_account`], or of one team [`Self::delete_team`], would touch: exact up to
    /// `most`.
    async fn deletion_size(&mut self, account: &AccountId, team: Option<&TeamId>, most: u32) -> StoreResult<u64>;
    /// Marks an account deleted, in one step whatever it has: to every reader all that is in it is gone, its keys are
    /// DELETED. The rest is left to [`Self::purge`].
    async fn begin_account_purge(&mut self, account: &AccountId, now: Timestamp) -> StoreResult<()>;
    /// Marks a team deleted, in one step whatever names it: to every reader it is gone. The rest is left to
    /// [`Self::purge`].
    async fn begin_team_purge(&mut self, account: &AccountId, team: &TeamId) -> StoreResult<()>;
    /// Removes at most `limit` rows of what a marked team, or a marked account, still has.
    async fn purge(
        &mut self,
        account: &AccountId,
        team: Option<&TeamId>,
        now: Timestamp,
        limit: u32,
    ) -> StoreResult<Purged>;
    /// Erases those of some keys that were deleted before a moment, with everything of theirs: at least one, if
    /// there is one, and no more than have `rows_max` rows. Returns the ids of the erased keys.
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

    /// Takes the head and starts the next epoch; the events that are appended then are its first. Returns
    /// the head as it was.
    async fn start_epoch(&mut self) -> StoreResult<Revision>;
    /// Takes the head, appends the events in order, stamps their objects: the last step before
    /// commit. Returns the revisions, one for each event.
    async fn append(&mut self, appends: Vec<Append>) -> StoreResult<Vec<Revision>>;
    /// Commits the transaction.
    async fn commit(self: Box<Self>) -> StoreResult<()>;
    /// Gives up; nothing was changed.
    async fn rollback(self: Box<Self>) -> StoreResult<()>;
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
    /// What the transaction will read first.
    pub prefetch: Prefetch,
}

/// Names what a transaction will read first, so that these reads travel with its locks in one round trip. They run
/// under the locks like any other read; what is not named here is read when it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Prefetch {
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

/// One event to append, and the objects that it stamps with its revision.
#[derive(Clone, Debug)]
pub struct Append {
    /// The event.
    pub draft: EventDraft,
    /// What it stamps.
    pub stamps: Vec<Stamp>,
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
