//! Roles: named sets of permissions that users have (A2, A5).

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
    },
    domain::{
        Error as RuleError, ObjectKind,
        directory::{Role, RolePermissions},
        id::{AccountId, RoleId},
        log::event::{Change, EventKind, list_change, value_change},
    },
};

struct UpsertRole {
    requester: Requester,
    account: AccountId,
    role: Role,
    guard: Guard,
}

struct DeleteRole {
    requester: Requester,
    account: AccountId,
    role: RoleId,
    guard: Guard,
}

impl App {
    /// Creates or replaces a role; its kind cannot change (A5).
    ///
    /// # Errors
    /// INVALID_ARGUMENT for permissions that are unknown, or not for this kind of role.
    pub async fn upsert_role(
        &self,
        session: &Session,
        account: &AccountId,
        role: Role,
        guard: Guard,
    ) -> Result<Changed<Role>, AppError> {
        session.check_directory(account)?;
        let validate_only = guard.validate_only;
        let requester = Requester::Session(session.clone());
        let done = self.run(UpsertRole { requester, account: account.clone(), role, guard }, validate_only).await?;
        let revision = stamped(&done.revisions, done.output.revision);
        Ok(Changed { value: Role { revision, ..done.output }, propagation: done.propagation })
    }

    /// Reads a role.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent or beyond the caller (A4).
    pub async fn get_role(&self, session: &Session, account: &AccountId, role: &RoleId) -> Result<Role, AppError> {
        let (mut reader, ..) = self.open_directory(session, account, "get_role").await?;
        Ok(reader.role(account, role).await?.ok_or(RuleError::NotFound(ObjectKind::Role))?)
    }

    /// Lists roles in order of id.
    ///
    /// # Errors
    /// NOT_FOUND for an account beyond the caller (A4).
    pub async fn list_roles(
        &self,
        session: &Session,
        account: &AccountId,
        page: Page<RoleId>,
    ) -> Result<Listed<Role, RoleId>, AppError> {
        let (mut reader, ..) = self.open_directory(session, account, "list_roles").await?;
        let items = reader.roles(account, &page.with_one_more()).await?;
        Ok(Listed::of(items, page.limit, |role| role.role_id.clone()))
    }

    /// Deletes a role that no user has (A5).
    ///
    /// # Errors
    /// NOT_FOUND for what is absent, FAILED_PRECONDITION while it is in use.
    pub async fn delete_role(
        &self,
        session: &Session,
        account: &AccountId,
        role: &RoleId,
        guard: Guard,
    ) -> Result<Propagation, AppError> {
        session.check_directory(account)?;
        let requester = Requester::Session(session.clone());
        let delete = DeleteRole { requester, account: account.clone(), role: role.clone(), guard };
        Ok(self.run(delete, false).await?.propagation)
    }
}

/// Returns the changes of a role, as the log has them.
pub(super) fn changes(before: Option<&Role>, after: Option<&Role>) -> [Option<Change>; 4] {
    let name = |role: Option<&Role>| role.map(|role| role.display_name.clone()).unwrap_or_default();
    let kind = |role: Option<&Role>| role.map_or("", |role| role.kind.as_str());
    let everything = |role: Option<&Role>| match role.map(|role| &role.permissions) {
        Some(RolePermissions::Everything) => "true",
        _ => "",
    };
    let names = |role: Option<&Role>| match role.map(|role| role.permissions.clone()) {
        Some(RolePermissions::Named(names)) => names,
        _ => std::collections::BTreeSet::new(),
    };
    [
        value_change("display_name", &name(before), &name(after)),
        value_change("kind", kind(before), kind(after)),
        value_change("all_permissions", everything(before), everything(after)),
        list_change("permissions", &names(before), &names(after)),
    ]
}

#[async_trait]
impl Mutation for UpsertRole {
    type Output = Role;
    const NAME: &'static str = "upsert_role";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Role>, AppError> {
        let actor = self.requester.actor(tx).await?;
        check_write(&actor, &self.account)?;
        existing_account(tx, &self.account).await?;
        let before = tx.role(&self.account, &self.role.role_id).await?;
        if before.as_ref().is_some_and(|before| before.kind != self.role.kind) {
            return Err(RuleError::field("role.kind", "cannot change once the role exists").into());
        }
        self.role.check_permissions("role", before.as_ref(), &actor.catalogue)?;
        let revision = before.as_ref().map_or(self.role.revision, |role| role.revision);
        let after = Role { revision, ..self.role.clone() };
        if before.as_ref() == Some(&after) {
            return Ok(Plan::unchanged(after));
        }
        check_etag(&self.guard, before.as_ref().map(|role| role.revision))?;
        tx.put_roles(&self.account, std::slice::from_ref(&after)).await?;
        let kind = if before.is_none() { EventKind::RoleCreated } else { EventKind::RoleUpdated };
        let stamps = vec![Stamp::Role(self.account.clone(), after.role_id.clone())];
        let target = ("role", after.role_id.as_str());
        let append = event(kind, &actor, Some(&self.account), target, changes(before.as_ref(), Some(&after)), stamps);
        Ok(Plan::one(after, append))
    }
}

#[async_trait]
impl Mutation for DeleteRole {
    type Output = ();
    const NAME: &'static str = "delete_role";

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
        let account = existing_account(tx, &self.account).await?;
        let before = tx.role(&self.account, &self.role).await?.ok_or(RuleError::NotFound(ObjectKind::Role))?;
        if tx.role_in_use(&self.account, &self.role).await? {
            if !account.purging_team_ids.is_empty() {
                let message = "is in use, or was on a team that is still being deleted: take it from its users";
                return Err(RuleError::StillDeleting(format!("role `{}` {message}, or retry later", self.role)).into());
            }
            let message = format!("role `{}` is in use: take it from its users before deleting it", self.role);
            return Err(RuleError::InUse(message).into());
        }
        check_etag(&self.guard, Some(before.revision))?;
        tx.delete_role(&self.account, &self.role).await?;
        let target = ("role", self.role.as_str());
        let append =
            event(EventKind::RoleDeleted, &actor, Some(&self.account), target, changes(Some(&before), None), vec![]);
        Ok(Plan::one((), append))
    }
}
