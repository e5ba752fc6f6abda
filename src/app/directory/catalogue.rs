//! The catalogue (P1): read by managers, replaced by operators, never by starting a server.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::event;
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag, stamped},
        ports::{Locks, Stamp, Tx},
        types::{CatalogueSpec, CatalogueView, Changed, Guard},
    },
    domain::{
        directory::Role,
        error::Violated,
        id::AccountId,
        log::{
            event::{Change, EventKind, list_change},
            revision::Revision,
        },
        permissions::{
            catalogue::{self, Catalogue, PermissionSpec, Usage},
            permission::SystemPermission,
        },
    },
};

struct ApplyCatalogue {
    requester: Requester,
    spec: CatalogueSpec,
    guard: Guard,
}

impl App {
    /// Reads the catalogue: for `system.directory`, or any manager of keys.
    ///
    /// # Errors
    /// PERMISSION_DENIED for others.
    pub async fn get_catalogue(&self, session: &Session) -> Result<CatalogueView, AppError> {
        let (mut reader, actor) = self.open(session).await?;
        actor.judge(|caller| super::may_read(caller, &caller.account_id, &actor))?;
        let default_roles = reader.default_roles().await?;
        Ok(CatalogueView { catalogue: actor.catalogue, default_roles })
    }

    /// Replaces the catalogue; needs `system.operate`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming every wrong permission; FAILED_PRECONDITION if one in use on teams
    /// would lose `team_scopable`.
    pub async fn apply_catalogue(
        &self,
        session: &Session,
        spec: CatalogueSpec,
        guard: Guard,
    ) -> Result<Changed<CatalogueView>, AppError> {
        session.check_operate()?;
        Ok(self.apply(Requester::Session(session.clone()), spec, guard).await?.0)
    }

    /// Does as [`Self::apply_catalogue`] for an operator with the database's own credentials, who runs
    /// `latchkey catalogue apply`. Also returns whether the catalogue differs from the one before. Waits without a
    /// deadline.
    ///
    /// # Errors
    /// As [`Self::apply_catalogue`].
    pub async fn apply_catalogue_locally(
        &self,
        spec: CatalogueSpec,
        validate_only: bool,
    ) -> Result<(Changed<CatalogueView>, bool), AppError> {
        self.apply(Requester::Local, spec, Guard { etag: None, validate_only }).await
    }

    async fn apply(
        &self,
        requester: Requester,
        spec: CatalogueSpec,
        guard: Guard,
    ) -> Result<(Changed<CatalogueView>, bool), AppError> {
        let validate_only = guard.validate_only;
        let done = self.run(ApplyCatalogue { requester, spec, guard }, validate_only).await?;
        let AppliedCatalogue { before, permissions, default_roles, differs } = done.output;
        let catalogue = Catalogue::new(stamped(&done.revisions, before), permissions).into();
        let value = CatalogueView { catalogue, default_roles };
        Ok((Changed { value, propagation: done.propagation }, differs))
    }
}

struct AppliedCatalogue {
    before: Revision,
    permissions: Vec<catalogue::Permission>,
    default_roles: Vec<Role>,
    differs: bool,
}

/// The names that the store found on teams.
struct OnTeams(BTreeSet<String>);

impl Usage for OnTeams {
    fn held_on_teams(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[async_trait]
impl Mutation for ApplyCatalogue {
    type Output = AppliedCatalogue;
    const NAME: &'static str = "apply_catalogue";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn account(&self) -> Option<&AccountId> {
        None
    }

    fn locks(&self) -> Locks {
        Locks { catalogue_exclusive: true, ..self.requester.locks_on(None) }
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let actor = self.requester.actor(tx).await?;
        actor.require(SystemPermission::Operate, None)?;
        let current = actor.catalogue.clone();
        let names: BTreeSet<_> =
            catalogue::losing_team_scopable(&current, &self.spec.permissions).map(str::to_owned).collect();
        let on_teams = OnTeams(tx.held_on_teams(&names).await?);
        let permissions = catalogue::plan(&current, self.spec.permissions.clone(), &on_teams)?;
        let next = Catalogue::new(current.revision(), permissions.clone());
        let old_roles = tx.default_roles().await?;
        check_default_roles(&self.spec.default_roles, &next)?;
        let mut roles = self.spec.default_roles.clone();
        roles.sort_by(|a, b| a.role_id.cmp(&b.role_id));
        let unstamped = |role: &Role| Role { revision: Revision { epoch: 0, number: 0 }, ..role.clone() };
        let same_roles = old_roles.iter().map(unstamped).eq(roles.iter().map(unstamped));
        let differs = !same_roles || current.permissions() != next.permissions();
        let (before, permissions) = (current.revision(), next.permissions().to_vec());
        let output = AppliedCatalogue { before, permissions, default_roles: roles.clone(), differs };
        if !differs {
            return Ok(Plan::unchanged(output));
        }
        check_etag(&self.guard, Some(current.revision()))?;
        tx.put_catalogue(next.permissions(), &roles).await?;
        let changes = changes(&current, &next, &old_roles, &roles);
        let append =
            event(EventKind::CatalogueApplied, &actor, None, ("catalogue", ""), changes, vec![Stamp::Catalogue]);
        Ok(Plan::one(output, append))
    }
}

fn check_default_roles(roles: &[Role], next: &Catalogue) -> Result<(), AppError> {
    let mut problems = Violated::default();
    let mut seen = BTreeSet::new();
    for (i, role) in roles.iter().enumerate() {
        let field = format!("catalogue.default_roles[{i}]");
        problems.collect(role.check_permissions(&field, None, next))?;
        if !seen.insert(&role.role_id) {
            problems.add(format!("{field}.role_id"), format!("`{}` is listed twice", role.role_id));
        }
    }
    Ok(problems.finish()?)
}

/// Permissions that are new, changed or retired, by name; default roles likewise.
fn changes(before: &Catalogue, after: &Catalogue, old: &[Role], new: &[Role]) -> Vec<Option<Change>> {
    let permissions = |catalogue: &Catalogue| -> Vec<String> {
        catalogue.permissions().iter().map(|permission| described(&permission.spec)).collect()
    };
    let roles = |roles: &[Role]| -> Vec<String> {
        roles.iter().map(|role| format!("{} {} {:?}", role.role_id, role.kind.as_str(), role.permissions)).collect()
    };
    vec![
        list_change("permissions", &permissions(before), &permissions(after)),
        list_change("default_roles", &roles(old), &roles(new)),
    ]
}

fn described(spec: &PermissionSpec) -> String {
    let mut text = spec.name.clone();
    if spec.team_scopable {
        text.push_str(" team_scopable");
    }
    if spec.retired {
        text.push_str(" retired");
    }
    if !spec.implies.is_empty() {
        text.push_str(" implies ");
        text.push_str(&spec.implies.join(","));
    }
    text
}
