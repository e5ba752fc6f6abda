//! Managing keys: create, read, edit, rotate, disable, enable, delete (K1-K8, M1-M9).

mod create;
mod log;
mod read;
mod revoke;
mod rotate;
mod state;
mod update;

pub(super) use revoke::RecordPresented;

use super::{App, caller::requester::Actor, error::AppError, ports::Reader};
use crate::domain::{
    Error as RuleError, ObjectKind,
    api_key::ApiKey,
    authority::{self, Caller},
    id::{AccountId, KeyId},
    permissions::{catalogue::Catalogue, grants::Grants},
};

/// Loads a key of an account within the caller's reach, absent or not.
async fn load(reader: &mut dyn Reader, actor: &Actor, account: &AccountId, key: KeyId) -> Result<ApiKey, AppError> {
    actor.reach(account)?;
    Ok(reader.api_key(account, key).await?.ok_or(RuleError::NotFound(ObjectKind::ApiKey))?)
}

/// Loads a key that the caller may view (M3, M8).
async fn load_visible(
    reader: &mut dyn Reader,
    actor: &Actor,
    account: &AccountId,
    key: KeyId,
) -> Result<ApiKey, AppError> {
    let key = load(reader, actor, account, key).await?;
    actor.judge(|caller| authority::check_visible(caller, &key.content.subject(), &actor.catalogue))?;
    Ok(key)
}

/// Checks that a caller may read keys of an account at all. An operator is also judged by this as if it did not
/// operate (A3).
fn may_read(caller: &Caller, account: &AccountId, catalogue: &Catalogue) -> Result<(), RuleError> {
    caller.reach(account)?;
    caller.managed(catalogue).require_any()
}

impl App {
    /// Leaves a trace of a read of an account's keys, if there is to be one: also of calls that change nothing and
    /// answer with a key.
    fn trace_key_read(&self, actor: &Actor, account: &AccountId, call: &'static str) {
        self.trace_read(actor, Some(account), call, |caller| may_read(caller, account, &actor.catalogue));
    }
}

/// Checks grants against the state: known names, team-scopable ones on teams, existing teams. What
/// the key had before may stay, whatever became of it.
async fn check_grants(
    reader: &mut dyn Reader,
    actor: &Actor,
    account: &AccountId,
    grants: &Grants,
    before: &Grants,
) -> Result<(), AppError> {
    grants.check_grantable("api_key", before, account, &actor.catalogue)?;
    let had = before.team_scope.as_ref();
    let Some(scope) = &grants.team_scope else { return Ok(()) };
    let new_teams: std::collections::BTreeSet<_> = scope
        .team_ids()
        .iter()
        .filter(|team| !had.is_some_and(|had| had.team_ids().contains(*team)))
        .cloned()
        .collect();
    let missing = reader.missing_teams(account, &new_teams).await?;
    let list: Vec<_> = missing.iter().map(|team| format!("`{team}`")).collect();
    if list.is_empty() {
        return Ok(());
    }
    let description = format!("not a team of account `{account}`: {}", list.join(", "));
    Err(RuleError::field("api_key.team_scope.team_ids", description).into())
}
