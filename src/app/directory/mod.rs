//! Accounts, teams, roles, users and the catalogue: kept as the product has them (A2-A5, P1).

mod accounts;
mod catalogue;
mod roles;
mod teams;
mod users;

use super::{
    App,
    caller::{requester::Actor, session::Session},
    error::AppError,
    fairness::reading::BoundedReader,
    ports::{Append, Reader, Stamp},
};
use crate::domain::{
    Error as RuleError, ObjectKind,
    authority::Caller,
    directory::{Account, AccountState},
    id::AccountId,
    log::event::{Change, EventDraft, EventKind, Target},
    permissions::permission::SystemPermission,
};

impl App {
    /// Opens a snapshot for a read of an account's directory: for `system.directory`, or for any
    /// manager of keys in its own account.
    async fn open_directory(
        &self,
        session: &Session,
        account: &AccountId,
        call: &'static str,
    ) -> Result<(BoundedReader, Actor, Account), AppError> {
        let (mut reader, actor) = self.open(session).await?;
        actor.judge(|caller| may_read(caller, account, &actor))?;
        self.trace_read(&actor, Some(account), call, |caller| may_read(caller, account, &actor));
        let found = existing_account(reader.as_mut(), account).await?;
        Ok((reader, actor, found))
    }
}

fn may_read(caller: &Caller, account: &AccountId, actor: &Actor) -> Result<(), RuleError> {
    if caller.holds(SystemPermission::Directory) {
        return Ok(());
    }
    caller.reach(account)?;
    caller.managed(&actor.catalogue).require_any()
}

/// Writes need `system.directory`, and never touch account `system` (A4).
fn check_write(actor: &Actor, account: &AccountId) -> Result<(), RuleError> {
    actor.require(SystemPermission::Directory, Some(account))?;
    if account.is_system() {
        return Err(RuleError::NotAllowed { rule: "A4", message: "account `system` has no directory to write" });
    }
    Ok(())
}

/// Returns an account that exists and is not deleted.
async fn existing_account(reader: &mut dyn Reader, account: &AccountId) -> Result<Account, AppError> {
    let found = reader.account(account).await?.filter(|account| account.state != AccountState::Deleted);
    Ok(found.ok_or(RuleError::NotFound(ObjectKind::Account))?)
}

/// Makes one event about an object of the directory.
fn event(
    kind: EventKind,
    actor: &Actor,
    account: Option<&AccountId>,
    target: (&str, &str),
    changes: impl IntoIterator<Item = Option<Change>>,
    stamps: Vec<Stamp>,
) -> Append {
    let draft = EventDraft {
        kind,
        account_id: account.cloned(),
        actor: actor.principal.clone(),
        target: Target { kind: target.0.to_owned(), id: target.1.to_owned() },
        changes: changes.into_iter().flatten().collect(),
        affected_key_ids: Vec::new(),
        break_glass: actor.break_glass(),
    };
    Append { draft, stamps }
}
