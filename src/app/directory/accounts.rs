//! Accounts: tenants of the product.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{check_write, event, existing_account};
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag, stamped},
        ports::{Lane, Page, Stamp, Tx},
        types::{Changed, Guard, Listed, Propagation},
        upkeep::purge,
    },
    domain::{
        Error as RuleError,
        directory::{Account, AccountState},
        id::AccountId,
        log::{
            event::{EventKind, list_change, value_change},
            revision::Revision,
        },
        permissions::permission::SystemPermission,
    },
};

struct UpsertAccount {
    requester: Requester,
    account: AccountId,
    display_name: String,
    guard: Guard,
}

struct SuspendAccount {
    requester: Requester,
    account: AccountId,
    state: AccountState,
}

struct DeleteAccount {
    requester: Requester,
    account: AccountId,
    guard: Guard,
}

impl App {
    /// Creates an account with the default roles, or replaces its display name.
    ///
    /// # Errors
    /// [`RuleError::IdNotReusable`] for a deleted account's id (A5).
    pub async fn upsert_account(
        &self,
        session: &Session,
        account: &AccountId,
        display_name: String,
        guard: Guard,
    ) -> Result<Changed<Account>, AppError> {
        session.check_directory(account)?;
        let validate_only = guard.validate_only;
        let requester = Requester::Session(session.clone());
        let upsert = UpsertAccount { requester, account: account.clone(), display_name, guard };
        let done = self.run(upsert, validate_only).await?;
        let revision = stamped(&done.revisions, done.output.revision);
        Ok(Changed { value: Account { revision, ..done.output }, propagation: done.propagation })
    }

    /// Reads an account.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent, deleted or beyond the caller (A4).
    pub async fn get_account(&self, session: &Session, account: &AccountId) -> Result<Account, AppError> {
        Ok(self.open_directory(session, account, "get_account").await?.2)
    }

    /// Lists all accounts in order of id; needs `system.directory`.
    ///
    /// # Errors
    /// PERMISSION_DENIED without it.
    pub async fn list_accounts(
        &self,
        session: &Session,
        page: Page<AccountId>,
    ) -> Result<Listed<Account, AccountId>, AppError> {
        let (mut reader, actor) = self.open(session).await?;
        actor.require(SystemPermission::Directory, None)?;
        self.trace_read(&actor, None, "list_accounts", |caller| {
            let needed = SystemPermission::Directory;
            if caller.holds(needed) { Ok(()) } else { Err(RuleError::missing(needed.name())) }
        });
        let items = reader.accounts(&page.with_one_more()).await?;
        Ok(Listed::of(items, page.limit, |account| account.account_id.clone()))
    }

    /// Suspends or resumes an account (A2). Idempotent.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent or deleted.
    pub async fn suspend_account(
        &self,
        session: &Session,
        account: &AccountId,
        suspended: bool,
    ) -> Result<Changed<Account>, AppError> {
        session.check_directory(account)?;
        let state = if suspended { AccountState::Suspended } else { AccountState::Active };
        let suspend =
            SuspendAccount { requester: Requester::Session(session.clone()), account: account.clone(), state };
        let done = self.run(suspend, false).await?;
        let revision = stamped(&done.revisions, done.output.revision);
        Ok(Changed { value: Account { revision, ..done.output }, propagation: done.propagation })
    }

    /// Deletes an account with everything in it; its id is never used again (A5). Idempotent. Of a large one, all
    /// authority ends at once, and what is in it is removed later.
    ///
    /// # Errors
    /// NOT_FOUND for an account that never was.
    pub async fn delete_account(
        &self,
        session: &Session,
        account: &AccountId,
        guard: Guard,
    ) -> Result<Propagation, AppError> {
        session.check_directory(account)?;
        let requester = Requester::Session(session.clone());
        Ok(self.run(DeleteAccount { requester, account: account.clone(), guard }, false).await?.propagation)
    }
}

#[async_trait]
impl Mutation for UpsertAccount {
    type Output = Account;
    const NAME: &'static str = "upsert_account";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Account>, AppError> {
        let actor = self.requester.actor(tx).await?;
        check_write(&actor, &self.account)?;
        let before = tx.account(&self.account).await?;
        if before.as_ref().is_some_and(|account| account.state == AccountState::Deleted) {
            return Err(RuleError::IdNotReusable.into());
        }
        let mut after = before.clone().unwrap_or(Account {
            account_id: self.account.clone(),
            display_name: String::new(),
            state: AccountState::Active,
            create_time: actor.now,
            api_key_count: 0,
            deleted_api_key_count: 0,
            purging_team_ids: BTreeSet::new(),
            is_purging: false,
            revision: Revision { epoch: 0, number: 0 },
        });
        after.display_name.clone_from(&self.display_name);
        if before.as_ref() == Some(&after) {
            return Ok(Plan::unchanged(after));
        }
        check_etag(&self.guard, before.as_ref().map(|account| account.revision))?;
        tx.put_account(&after).await?;
        let mut stamps = vec![Stamp::Account(self.account.clone())];
        let mut roles = Vec::new();
        if before.is_none() {
            roles = tx.default_roles().await?;
            tx.put_roles(&self.account, &roles).await?;
            stamps.push(Stamp::Roles(self.account.clone()));
        }
        let kind = if before.is_none() { EventKind::AccountCreated } else { EventKind::AccountUpdated };
        let old_name = before.map(|account| account.display_name).unwrap_or_default();
        let changes = [
            value_change("display_name", &old_name, &after.display_name),
            list_change("roles", &[], roles.iter().map(|role| &role.role_id)),
        ];
        let target = ("account", self.account.as_str());
        let append = event(kind, &actor, Some(&self.account), target, changes, stamps);
        Ok(Plan::one(after, append))
    }
}

#[async_trait]
impl Mutation for SuspendAccount {
    type Output = Account;
    const NAME: &'static str = "suspend_account";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn lane(&self) -> Lane {
        match self.state {
            AccountState::Suspended | AccountState::Deleted => Lane::Narrowing,
            AccountState::Active => Lane::Mutations,
        }
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Account>, AppError> {
        let actor = self.requester.actor(tx).await?;
        check_write(&actor, &self.account)?;
        let before = existing_account(tx, &self.account).await?;
        if before.state == self.state {
            return Ok(Plan::unchanged(before));
        }
        let after = Account { state: self.state, ..before.clone() };
        tx.put_account(&after).await?;
        let kind = match self.state {
            AccountState::Suspended => EventKind::AccountSuspended,
            AccountState::Active | AccountState::Deleted => EventKind::AccountResumed,
        };
        let changes = [value_change("state", before.state.as_str(), after.state.as_str())];
        let stamps = vec![Stamp::Account(self.account.clone())];
        let target = ("account", self.account.as_str());
        Ok(Plan::one(after, event(kind, &actor, Some(&self.account), target, changes, stamps)))
    }
}

#[async_trait]
impl Mutation for DeleteAccount {
    type Output = ();
    const NAME: &'static str = "delete_account";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn lane(&self) -> Lane {
        Lane::Narrowing
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, AppError> {
        let actor = self.requester.actor(tx).await?;
        check_write(&actor, &self.account)?;
        let before = match tx.account(&self.account).await? {
            Some(account) if account.state == AccountState::Deleted => return Ok(Plan::unchanged(())),
            Some(account) => account,
            None => existing_account(tx, &self.account).await?,
        };
        check_etag(&self.guard, Some(before.revision))?;
        let most = purge::DELETED_AT_ONCE_MAX;
        let at_once = tx.deletion_size(&self.account, None, most).await? <= u64::from(most);
        let (keys, rest) = if at_once {
            (tx.delete_account(&self.account, actor.now).await?, None)
        } else {
            tx.begin_account_purge(&self.account, actor.now).await?;
            (Vec::new(), purge::begun("contents"))
        };
        let changes = [value_change("state", before.state.as_str(), AccountState::Deleted.as_str()), rest];
        let stamps = vec![Stamp::Account(self.account.clone()), Stamp::ApiKeys(self.account.clone(), keys.clone())];
        let target = ("account", self.account.as_str());
        let mut append = event(EventKind::AccountDeleted, &actor, Some(&self.account), target, changes, stamps);
        append.draft.affected_key_ids = keys;
        Ok(Plan::one((), append))
    }
}
