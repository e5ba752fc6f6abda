//! GetIdentity: who the bearer is, what it may do, and what it may grant.

use std::collections::BTreeMap;

use super::session::Session;
use crate::{
    app::{App, error::AppError, types::IdentityView},
    domain::{
        authority::{Caller, Identity, Managed},
        id::TeamId,
        permissions::{
            catalogue::Catalogue,
            permission::{PermissionSet, SystemPermission},
        },
    },
};

impl App {
    /// Returns the bearer's identity, or with on-behalf-of the user's, so that a page can offer what may be
    /// granted.
    ///
    /// # Errors
    /// Only those of an unknown or dead caller.
    pub async fn identity(&self, session: &Session) -> Result<IdentityView, AppError> {
        let (mut reader, actor) = self.open(session).await?;
        // Everyone may know who they are; only for a user can an operator ask beyond its own account.
        if let Some(user) = session.on_behalf_of() {
            self.trace_read(&actor, Some(&user.account_id), "get_identity", |_| Ok(()));
        }
        let revision = reader.head().await?;
        let caller = actor.caller.ok_or(AppError::Internal("a session without a caller"))?;
        let (key, user_id) = match &caller.identity {
            Identity::Key { key_id, .. } => {
                let key = reader.api_key(&caller.account_id, *key_id).await?;
                (key.map(|key| key.shown_at(actor.now)), None)
            }
            Identity::User { user_id, .. } => (None, Some(user_id.clone())),
        };
        let (grantable_account, grantable_teams) = grantable(&caller, &actor.catalogue);
        Ok(IdentityView {
            account_id: caller.account_id,
            key,
            user_id,
            held: caller.held,
            grantable_account,
            grantable_teams,
            catalogue: actor.catalogue,
            revision,
        })
    }
}

/// Returns what the caller may put into keys that it makes: confinement (M4), where it manages (M1, M2),
/// without what it may not make (M5, A4).
fn grantable(caller: &Caller, catalogue: &Catalogue) -> (PermissionSet, BTreeMap<TeamId, PermissionSet>) {
    let mut never = PermissionSet::of(SystemPermission::Operate.bit());
    if matches!(caller.identity, Identity::Key { .. }) && !caller.operates() {
        never = catalogue.manage().map_or(never, |manage| never.union(&PermissionSet::of(manage)));
    }
    let on_team = |team: &TeamId| {
        caller.can_confer(Some(team), catalogue).difference(&never).intersection(&catalogue.team_scopable())
    };
    match caller.managed(catalogue) {
        Managed::Nothing => (PermissionSet::EMPTY, BTreeMap::new()),
        Managed::Teams(teams) => {
            let teams = teams.into_iter().map(|team| (team.clone(), on_team(&team))).collect();
            (PermissionSet::EMPTY, teams)
        }
        Managed::Account => {
            let account = caller.can_confer(None, catalogue).difference(&never);
            let teams = caller.held.teams.keys().map(|team| (team.clone(), on_team(team))).collect();
            (account, teams)
        }
    }
}
