//! Users and their roles (A2, A5).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::{check_write, event, existing_account};
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag},
        ports::{Lane, Page, Stamp, Tx},
        types::{Changed, Guard, Listed, Propagation},
    },
    domain::{
        Error as RuleError, ObjectKind,
        directory::{RoleKind, User, UserState},
        error::Violated,
        id::{AccountId, RoleId, TeamId, UserId},
        log::{
            event::{Change, EventKind, list_change, value_change},
            revision::Etag,
        },
    },
};

struct UpsertUsers {
    requester: Requester,
    account: AccountId,
    users: Vec<(User, Option<Etag>)>,
    field: &'static str,
}

struct DeleteUser {
    requester: Requester,
    account: AccountId,
    user: UserId,
    guard: Guard,
}

impl App {
    /// Creates or replaces users with all their roles, in one transaction, an event for each that
    /// changes. `field` is the request's field: `user`, or `users` for a batch.
    ///
    /// # Errors
    /// All or none: whatever is refused for one is refused for all.
    pub async fn upsert_users(
        &self,
        session: &Session,
        account: &AccountId,
        users: Vec<(User, Option<Etag>)>,
        validate_only: bool,
        field: &'static str,
    ) -> Result<Changed<Vec<User>>, AppError> {
        session.check_directory(account)?;
        let upsert =
            UpsertUsers { requester: Requester::Session(session.clone()), account: account.clone(), users, field };
        let done = self.run(upsert, validate_only).await?;
        let mut revisions = done.revisions.into_iter();
        let value = done.output.into_iter().map(|(mut user, changed)| {
            user.revision = changed.then(|| revisions.next()).flatten().unwrap_or(user.revision);
            user
        });
        Ok(Changed { value: value.collect(), propagation: done.propagation })
    }

    /// Reads a user.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent or beyond the caller (A4).
    pub async fn get_user(&self, session: &Session, account: &AccountId, user: &UserId) -> Result<User, AppError> {
        let (mut reader, ..) = self.open_directory(session, account, "get_user").await?;
        Ok(reader.user(account, user).await?.ok_or(RuleError::NotFound(ObjectKind::User))?)
    }

    /// Lists users in order of id.
    ///
    /// # Errors
    /// NOT_FOUND for an account beyond the caller (A4).
    pub async fn list_users(
        &self,
        session: &Session,
        account: &AccountId,
        page: Page<UserId>,
    ) -> Result<Listed<User, UserId>, AppError> {
        let (mut reader, ..) = self.open_directory(session, account, "list_users").await?;
        let items = reader.users(account, &page.with_one_more()).await?;
        Ok(Listed::of(items, page.limit, |user| user.user_id.clone()))
    }

    /// Deletes a user with its roles; keys that it made stay (A5, K5).
    ///
    /// # Errors
    /// NOT_FOUND for what is absent.
    pub async fn delete_user(
        &self,
        session: &Session,
        account: &AccountId,
        user: &UserId,
        guard: Guard,
    ) -> Result<Propagation, AppError> {
        session.check_directory(account)?;
        let requester = Requester::Session(session.clone());
        let delete = DeleteUser { requester, account: account.clone(), user: user.clone(), guard };
        Ok(self.run(delete, false).await?.propagation)
    }
}

fn changes(before: Option<&User>, after: Option<&User>) -> [Option<Change>; 5] {
    let name = |user: Option<&User>| user.map(|user| user.display_name.clone()).unwrap_or_default();
    let state = |user: Option<&User>| user.map_or("", |user| user.state.as_str());
    let base = |user: Option<&User>| user.map(|user| user.base_role_id.to_string()).unwrap_or_default();
    let custom = |user: Option<&User>| user.map(|user| user.custom_role_ids.clone()).unwrap_or_default();
    let team = |user: Option<&User>| -> Vec<String> {
        user.iter().flat_map(|user| &user.team_roles).map(|(team, role)| format!("{team}/{role}")).collect()
    };
    [
        value_change("display_name", &name(before), &name(after)),
        value_change("state", state(before), state(after)),
        value_change("base_role_id", &base(before), &base(after)),
        list_change("custom_role_ids", &custom(before), &custom(after)),
        list_change("team_roles", &team(before), &team(after)),
    ]
}

#[async_trait]
impl Mutation for UpsertUsers {
    /// Each user with whether it changed.
    type Output = Vec<(User, bool)>;
    const NAME: &'static str = "upsert_users";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn lane(&self) -> Lane {
        let deactivates = |(user, _): &(User, Option<Etag>)| user.state == UserState::Deactivated;
        if self.users.iter().all(deactivates) { Lane::Narrowing } else { Lane::Mutations }
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let actor = self.requester.actor(tx).await?;
        check_write(&actor, &self.account)?;
        existing_account(tx, &self.account).await?;
        self.check_references(tx).await?;
        let (mut output, mut changed, mut appends) = (Vec::new(), Vec::new(), Vec::new());
        for (user, etag) in &self.users {
            let before = tx.user(&self.account, &user.user_id).await?;
            let revision = before.as_ref().map_or(user.revision, |user| user.revision);
            let after = User { revision, ..user.clone() };
            if before.as_ref() == Some(&after) {
                output.push((after, false));
                continue;
            }
            let guard = Guard { etag: etag.clone(), validate_only: false };
            check_etag(&guard, before.as_ref().map(|user| user.revision))?;
            let kind = if before.is_none() { EventKind::UserCreated } else { EventKind::UserUpdated };
            let stamps = vec![Stamp::User(self.account.clone(), user.user_id.clone())];
            let target = ("user", user.user_id.as_str());
            let changes = changes(before.as_ref(), Some(&after));
            appends.push(event(kind, &actor, Some(&self.account), target, changes, stamps));
            changed.push(after.clone());
            output.push((after, true));
        }
        tx.put_users(&self.account, &changed).await?;
        let repeats = appends.len() < output.len();
        Ok(Plan { output, appends, repeats })
    }
}

impl UpsertUsers {
    /// Checks that every role named exists and is of the right kind, and that every team exists.
    async fn check_references(&self, tx: &mut dyn Tx) -> Result<(), AppError> {
        let mut kinds: BTreeMap<RoleId, Option<RoleKind>> = BTreeMap::new();
        let mut teams: BTreeSet<TeamId> = BTreeSet::new();
        for (user, _) in &self.users {
            let team_roles = user.team_roles.iter().map(|(_, role)| role);
            for role in std::iter::once(&user.base_role_id).chain(&user.custom_role_ids).chain(team_roles) {
                if !kinds.contains_key(role) {
                    let found = tx.role(&self.account, role).await?;
                    kinds.insert(role.clone(), found.map(|role| role.kind));
                }
            }
            teams.extend(user.team_roles.iter().map(|(team, _)| team.clone()));
        }
        let missing = tx.missing_teams(&self.account, &teams).await?;
        let mut problems = Violated::default();
        for (i, (user, _)) in self.users.iter().enumerate() {
            let path = if self.field == "users" { format!("users[{i}]") } else { self.field.to_owned() };
            let mut check = |field: &str, role: &RoleId, kind: RoleKind| {
                if kinds.get(role).copied().flatten() != Some(kind) {
                    let description = format!("`{role}` is not a role of kind {} of the account", kind.as_str());
                    problems.add(format!("{path}.{field}"), description);
                }
            };
            check("base_role_id", &user.base_role_id, RoleKind::Base);
            user.custom_role_ids.iter().for_each(|role| check("custom_role_ids", role, RoleKind::Custom));
            user.team_roles.iter().for_each(|(_, role)| check("team_roles", role, RoleKind::Team));
            for (team, _) in user.team_roles.iter().filter(|(team, _)| missing.contains(team)) {
                problems.add(format!("{path}.team_roles"), format!("`{team}` is not a team of the account"));
            }
        }
        Ok(problems.finish()?)
    }
}

#[async_trait]
impl Mutation for DeleteUser {
    type Output = ();
    const NAME: &'static str = "delete_user";

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
        existing_account(tx, &self.account).await?;
        let before = tx.user(&self.account, &self.user).await?.ok_or(RuleError::NotFound(ObjectKind::User))?;
        check_etag(&self.guard, Some(before.revision))?;
        tx.delete_user(&self.account, &self.user).await?;
        let target = ("user", self.user.as_str());
        let changes = changes(Some(&before), None);
        Ok(Plan::one((), event(EventKind::UserDeleted, &actor, Some(&self.account), target, changes, vec![])))
    }
}
