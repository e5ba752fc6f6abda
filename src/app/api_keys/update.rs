//! Editing a key (K7): its token keeps working, with the new permissions.

use async_trait::async_trait;

use super::{
    check_grants,
    create::{check_future, expire_time},
    load_visible, log,
};
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag, stamped},
        ports::{Lane, Tx},
        types::{ApiKeyEdit, Changed, Guard, TeamScopeEdit},
    },
    domain::{
        Error as RuleError,
        api_key::{ApiKey, ApiKeyContent},
        authority,
        id::{AccountId, KeyId},
        log::event::EventKind,
        permissions::grants::TeamScope,
        time::Timestamp,
    },
};

struct UpdateApiKey {
    app: App,
    requester: Requester,
    account: AccountId,
    key: KeyId,
    edit: ApiKeyEdit,
    guard: Guard,
}

impl App {
    /// Edits a key, judged as it was and as it will be (M2, M4-M7).
    ///
    /// # Errors
    /// In the order of M8: visibility, authority, state, etag, quota.
    pub async fn update_api_key(
        &self,
        session: &Session,
        account: &AccountId,
        key: KeyId,
        edit: ApiKeyEdit,
        guard: Guard,
    ) -> Result<Changed<ApiKey>, AppError> {
        session.check_reach(account)?;
        let validate_only = guard.validate_only;
        let requester = Requester::Session(session.clone());
        let update = UpdateApiKey { app: self.clone(), requester, account: account.clone(), key, edit, guard };
        let done = self.run(update, validate_only).await?;
        let mut key = done.output;
        key.revision = stamped(&done.revisions, key.revision);
        Ok(Changed { value: key, propagation: done.propagation })
    }
}

#[async_trait]
impl Mutation for UpdateApiKey {
    type Output = ApiKey;
    const NAME: &'static str = "update_api_key";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn lane(&self) -> Lane {
        if self.edit.only_narrows() { Lane::Narrowing } else { Lane::Mutations }
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<ApiKey>, AppError> {
        let actor = self.requester.actor(tx).await?;
        let before = load_visible(tx, &actor, &self.account, self.key).await?;
        let content = match edited(&before.content, &self.edit, actor.now) {
            Ok(content) => content,
            Err(impossible) => {
                // Validation against state comes after authority (M8): first on the key as it is.
                let was = before.content.subject();
                actor.judge(|caller| authority::check_update(caller, self.key, &was, &was, &actor.catalogue))?;
                before.check_not_deleted()?;
                return Err(impossible.into());
            }
        };
        let mut after = ApiKey { content, ..before.clone() };
        actor.judge(|caller| {
            let (was, will) = (before.content.subject(), after.content.subject());
            authority::check_update(caller, self.key, &was, &will, &actor.catalogue)
        })?;
        before.check_not_deleted()?;
        check_grants(tx, &actor, &self.account, &after.content.grants, &before.content.grants).await?;
        let moved = before.content.expire_time != after.content.expire_time;
        if let Some(expiry) = self.edit.expiry.filter(|_| moved) {
            check_future(expiry, actor.now)?;
        }
        if self.guard.validate_only || after.content == before.content {
            self.app.trace_key_read(&actor, &self.account, Self::NAME);
        }
        if after.content == before.content {
            return Ok(Plan::unchanged(before.shown_at(actor.now)));
        }
        check_etag(&self.guard, Some(before.revision))?;
        let had = before.content.grants.team_scope.as_ref().map(TeamScope::team_ids);
        let teams = after.content.grants.team_scope.iter().flat_map(TeamScope::team_ids);
        let joined = teams.filter(|team| !had.is_some_and(|had| had.contains(*team)));
        self.app.check_team_quotas(tx, &self.account, joined).await?;
        after.update_time = actor.now;
        if let Some(end) = earlier(before.content.expire_time, after.content.expire_time) {
            // A retiring token never outlives the key's expiry (K8), even if that moves later again.
            tx.end_retiring_tokens(self.key, end).await?;
            after.retiring_end_time = after.retiring_end_time.map(|retiring| retiring.min(end));
        }
        tx.update_api_key(&before, &after).await?;
        let append = log::event(EventKind::ApiKeyUpdated, &actor, Some(&before), &after);
        Ok(Plan::one(after.shown_at(actor.now), append))
    }
}

fn earlier(before: Option<Timestamp>, after: Option<Timestamp>) -> Option<Timestamp> {
    after.filter(|after| before.is_none_or(|before| *after < before))
}

fn edited(before: &ApiKeyContent, edit: &ApiKeyEdit, now: Timestamp) -> Result<ApiKeyContent, RuleError> {
    let mut content = before.clone();
    if let Some(name) = &edit.name {
        content.name.clone_from(name);
    }
    if let Some(comment) = &edit.comment {
        content.comment.clone_from(comment);
    }
    if let Some(metadata) = &edit.metadata {
        content.metadata.clone_from(metadata);
    }
    if let Some(names) = &edit.account_permissions {
        content.grants.account_permissions.clone_from(names);
    }
    if let Some(edit) = &edit.team_scope {
        content.grants.team_scope = edited_scope(before.grants.team_scope.as_ref(), edit)?;
    }
    if let Some(expiry) = edit.expiry {
        content.expire_time = expire_time(expiry, now);
    }
    Ok(content)
}

fn edited_scope(before: Option<&TeamScope>, edit: &TeamScopeEdit) -> Result<Option<TeamScope>, RuleError> {
    let (team_ids, permissions) = match edit {
        TeamScopeEdit::Whole(scope) => return Ok(scope.clone()),
        TeamScopeEdit::Parts { team_ids, permissions } => (team_ids.clone(), permissions.clone()),
    };
    let team_ids = team_ids.or_else(|| before.map(|scope| scope.team_ids().clone())).unwrap_or_default();
    let permissions = permissions.or_else(|| before.map(|scope| scope.permissions().clone())).unwrap_or_default();
    if team_ids.is_empty() != permissions.is_empty() {
        let empty = if team_ids.is_empty() { "team_ids" } else { "permissions" };
        let field = format!("api_key.team_scope.{empty}");
        return Err(RuleError::field(field, "must not be empty: a team scope names teams and permissions"));
    }
    Ok(TeamScope::from_stored(team_ids, permissions))
}
