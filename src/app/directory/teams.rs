//! Teams.

use async_trait::async_trait;

use super::{check_write, event, existing_account};
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag},
        ports::{Lane, Page, Stamp, TeamRemoval, Tx},
        types::{Changed, Guard, Listed, Propagation},
        upkeep::purge,
    },
    domain::{
        Error as RuleError, ObjectKind,
        directory::{Account, Team},
        id::{AccountId, TeamId},
        log::{
            event::{EventKind, list_change, value_change},
            revision::Etag,
        },
    },
};

struct UpsertTeams {
    requester: Requester,
    account: AccountId,
    teams: Vec<(Team, Option<Etag>)>,
}

struct DeleteTeam {
    requester: Requester,
    account: AccountId,
    team: TeamId,
    guard: Guard,
}

impl App {
    /// Creates or replaces teams in one transaction, an event for each that changes.
    ///
    /// # Errors
    /// All or none: whatever is refused for one is refused for all.
    pub async fn upsert_teams(
        &self,
        session: &Session,
        account: &AccountId,
        teams: Vec<(Team, Option<Etag>)>,
        validate_only: bool,
    ) -> Result<Changed<Vec<Team>>, AppError> {
        session.check_directory(account)?;
        let upsert = UpsertTeams { requester: Requester::Session(session.clone()), account: account.clone(), teams };
        let done = self.run(upsert, validate_only).await?;
        let mut revisions = done.revisions.into_iter();
        let value = done.output.into_iter().map(|(mut team, changed)| {
            team.revision = changed.then(|| revisions.next()).flatten().unwrap_or(team.revision);
            team
        });
        Ok(Changed { value: value.collect(), propagation: done.propagation })
    }

    /// Reads a team.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent or beyond the caller (A4).
    pub async fn get_team(&self, session: &Session, account: &AccountId, team: &TeamId) -> Result<Team, AppError> {
        let (mut reader, ..) = self.open_directory(session, account, "get_team").await?;
        Ok(reader.team(account, team).await?.ok_or(RuleError::NotFound(ObjectKind::Team))?)
    }

    /// Lists teams in order of id.
    ///
    /// # Errors
    /// NOT_FOUND for an account beyond the caller (A4).
    pub async fn list_teams(
        &self,
        session: &Session,
        account: &AccountId,
        page: Page<TeamId>,
    ) -> Result<Listed<Team, TeamId>, AppError> {
        let (mut reader, ..) = self.open_directory(session, account, "list_teams").await?;
        let items = reader.teams(account, &page.with_one_more()).await?;
        Ok(Listed::of(items, page.limit, |team| team.team_id.clone()))
    }

    /// Deletes a team: taken from all keys and users in one event that lists the keys (A5). A large one is gone at once
    /// to every reader, and is taken from them later.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent; FAILED_PRECONDITION while too many large ones are being deleted.
    pub async fn delete_team(
        &self,
        session: &Session,
        account: &AccountId,
        team: &TeamId,
        guard: Guard,
    ) -> Result<Propagation, AppError> {
        session.check_directory(account)?;
        let requester = Requester::Session(session.clone());
        let delete = DeleteTeam { requester, account: account.clone(), team: team.clone(), guard };
        Ok(self.run(delete, false).await?.propagation)
    }
}

fn check_purging_teams(account: &Account) -> Result<(), RuleError> {
    if account.purging_team_ids.len() < purge::PURGING_TEAMS_MAX {
        return Ok(());
    }
    let message = format!("{} large teams of the account are still being deleted", account.purging_team_ids.len());
    Err(RuleError::StillDeleting(format!("{message}: retry later")))
}

#[async_trait]
impl Mutation for UpsertTeams {
    /// Each team with whether it changed.
    type Output = Vec<(Team, bool)>;
    const NAME: &'static str = "upsert_teams";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let actor = self.requester.actor(tx).await?;
        check_write(&actor, &self.account)?;
        let account = existing_account(tx, &self.account).await?;
        if let Some((team, _)) = self.teams.iter().find(|(team, _)| account.purging_team_ids.contains(&team.team_id)) {
            // A team of that id would take over what still names the one that was deleted.
            let message = format!("team `{}` was deleted, and is still being taken from keys and users", team.team_id);
            return Err(RuleError::StillDeleting(format!("{message}: retry later")).into());
        }
        let (mut output, mut changed, mut appends) = (Vec::new(), Vec::new(), Vec::new());
        for (team, etag) in &self.teams {
            let before = tx.team(&self.account, &team.team_id).await?;
            let old_name = before.as_ref().map(|team| team.display_name.as_str());
            if old_name == Some(&team.display_name) {
                output.extend(before.map(|team| (team, false)));
                continue;
            }
            let guard = Guard { etag: etag.clone(), validate_only: false };
            check_etag(&guard, before.as_ref().map(|team| team.revision))?;
            let kind = if before.is_none() { EventKind::TeamCreated } else { EventKind::TeamUpdated };
            let changes = [value_change("display_name", old_name.unwrap_or_default(), &team.display_name)];
            let stamps = vec![Stamp::Team(self.account.clone(), team.team_id.clone())];
            let target = ("team", team.team_id.as_str());
            appends.push(event(kind, &actor, Some(&self.account), target, changes, stamps));
            changed.push(team.clone());
            let revision = before.map_or(team.revision, |team| team.revision);
            output.push((Team { revision, ..team.clone() }, true));
        }
        tx.put_teams(&self.account, &changed).await?;
        let repeats = appends.len() < output.len();
        Ok(Plan { output, appends, repeats })
    }
}

#[async_trait]
impl Mutation for DeleteTeam {
    type Output = ();
    const NAME: &'static str = "delete_team";

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
        let before = tx.team(&self.account, &self.team).await?.ok_or(RuleError::NotFound(ObjectKind::Team))?;
        check_etag(&self.guard, Some(before.revision))?;
        let most = purge::DELETED_AT_ONCE_MAX;
        let at_once = tx.deletion_size(&self.account, Some(&self.team), most).await? <= u64::from(most);
        let (removal, rest) = if at_once {
            (tx.delete_team(&self.account, &self.team, actor.now).await?, None)
        } else {
            check_purging_teams(&account)?;
            tx.begin_team_purge(&self.account, &self.team).await?;
            (TeamRemoval::default(), purge::begun("state"))
        };
        let stamps = vec![
            Stamp::ApiKeys(self.account.clone(), removal.key_ids.clone()),
            Stamp::Users(self.account.clone(), removal.user_ids.clone()),
        ];
        let changes = [
            value_change("display_name", &before.display_name, ""),
            list_change("users", &removal.user_ids, &[]),
            rest,
        ];
        let target = ("team", self.team.as_str());
        let mut append = event(EventKind::TeamDeleted, &actor, Some(&self.account), target, changes, stamps);
        append.draft.affected_key_ids = removal.key_ids;
        Ok(Plan::one((), append))
    }
}
