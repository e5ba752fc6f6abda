//! What is removed later: what a large deletion withdrew at once (A5), and keys that were deleted long ago (K6, T3).
//!
//! Each step is a mutation of its own, with an event that names what it removed: short, so that others wait little, and
//! judged by what is left under the account's lock, so that it resumes after a crash, on any replica.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    app::{
        App,
        caller::requester::Requester,
        error::AppError,
        mutation::{Mutation, Plan},
        ports::{Append, Lane, Purged, Stamp, Tx},
    },
    domain::{
        id::{AccountId, KeyId, TeamId},
        log::event::{Change, EventDraft, EventKind, Target, list_change, value_change},
        time::Timestamp,
    },
};

/// From how many rows on a deletion only marks what is deleted, and the rest is purged.
pub(crate) const DELETED_AT_ONCE_MAX: u32 = 1_000;
/// How many large deletions of teams an account may have under way: each reader of its keys reads the list.
pub(crate) const PURGING_TEAMS_MAX: usize = 64;
/// How many rows a step removes.
const PURGE_BATCH: u32 = 1_000;
/// How many accounts a round looks at.
const PURGE_ACCOUNTS: u32 = 100;
/// How many deleted keys a round looks at.
const ERASE_BATCH: u32 = 200;
/// How many rows may belong to what one step erases.
const ERASED_ROWS_MAX: u32 = 2_000;
/// Between two steps: at least as long as the step took, so that the log is free for others at least half of the time.
const PAUSE_MIN: Duration = Duration::from_millis(2);

/// The state of what a large deletion still has to remove, in the log.
const DELETING: &str = "deleting";
const DELETED: &str = "deleted";

struct Purge {
    account: AccountId,
    team: Option<TeamId>,
}

struct EraseApiKeys {
    account: AccountId,
    keys: Vec<KeyId>,
    before: Timestamp,
}

/// Returns the change by which the log says that a deletion leaves the rest to a purge.
pub(crate) fn begun(field: &str) -> Option<Change> {
    value_change(field, "", DELETING)
}

impl App {
    /// Removes what large deletions left, a step of each account in turn, until nothing is.
    pub(crate) async fn purge(&self) -> Result<(), AppError> {
        loop {
            let accounts = self.store().snapshot(Lane::Upkeep).await?.purging_accounts(PURGE_ACCOUNTS).await?;
            if accounts.is_empty() {
                return Ok(());
            }
            for account in accounts {
                let teams = match self.store().snapshot(Lane::Upkeep).await?.account(&account).await? {
                    Some(found) => found.purging_team_ids,
                    None => continue,
                };
                let team = teams.into_iter().next();
                self.step(Purge { account, team }).await?;
            }
        }
    }

    /// Erases keys that were deleted before a moment.
    pub(super) async fn erase_deleted_api_keys(&self, before: Timestamp) -> Result<(), AppError> {
        loop {
            let due = self.store().snapshot(Lane::Upkeep).await?.api_keys_due(before, ERASE_BATCH).await?;
            if due.is_empty() {
                return Ok(());
            }
            let mut by_account: BTreeMap<AccountId, Vec<KeyId>> = BTreeMap::new();
            for (account, key) in due {
                by_account.entry(account).or_default().push(key);
            }
            for (account, keys) in by_account {
                self.step(EraseApiKeys { account, keys, before }).await?;
            }
        }
    }

    async fn step<M: Mutation>(&self, step: M) -> Result<(), AppError> {
        let started = Instant::now();
        self.run(step, false).await?;
        tokio::time::sleep(started.elapsed().max(PAUSE_MIN)).await;
        Ok(())
    }
}

/// Drafts the event: Latchkey itself does it.
fn draft(kind: EventKind, account: &AccountId, target: (&str, &str), keys: Vec<KeyId>) -> EventDraft {
    EventDraft {
        kind,
        account_id: Some(account.clone()),
        actor: None,
        target: Target { kind: target.0.to_owned(), id: target.1.to_owned() },
        changes: Vec::new(),
        affected_key_ids: keys,
        break_glass: false,
    }
}

#[async_trait]
impl Mutation for Purge {
    type Output = ();
    const NAME: &'static str = "purge";

    fn requester(&self) -> &Requester {
        &Requester::Upkeep
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, AppError> {
        let Some(account) = tx.account(&self.account).await? else { return Ok(Plan::unchanged(())) };
        // Another replica may have been here since.
        let is_marked = match &self.team {
            Some(team) => account.purging_team_ids.contains(team),
            None => account.is_purging,
        };
        if !is_marked {
            return Ok(Plan::unchanged(()));
        }
        let now = tx.now().await?;
        let Purged { key_ids, user_ids, team_ids, role_ids, done } =
            tx.purge(&self.account, self.team.as_ref(), now, PURGE_BATCH).await?;
        let (kind, target, field) = match &self.team {
            Some(team) => (EventKind::TeamPurged, ("team", team.as_str()), "state"),
            None => (EventKind::AccountPurged, ("account", self.account.as_str()), "contents"),
        };
        let mut draft = draft(kind, &self.account, target, key_ids.clone());
        let changes = [
            list_change("users", &user_ids, &[]),
            list_change("teams", &team_ids, &[]),
            list_change("roles", &role_ids, &[]),
            value_change(field, DELETING, if done { DELETED } else { DELETING }),
        ];
        draft.changes = changes.into_iter().flatten().collect();
        let stamps = vec![Stamp::ApiKeys(self.account.clone(), key_ids), Stamp::Users(self.account.clone(), user_ids)];
        Ok(Plan::one((), Append { draft, stamps }))
    }
}

#[async_trait]
impl Mutation for EraseApiKeys {
    type Output = ();
    const NAME: &'static str = "erase_api_keys";

    fn requester(&self) -> &Requester {
        &Requester::Upkeep
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, AppError> {
        let erased = tx.erase_api_keys(&self.account, &self.keys, self.before, ERASED_ROWS_MAX).await?;
        if erased.is_empty() {
            return Ok(Plan::unchanged(()));
        }
        let target = ("account", self.account.as_str());
        let draft = draft(EventKind::ApiKeysErased, &self.account, target, erased);
        Ok(Plan::one((), Append { draft, stamps: Vec::new() }))
    }
}
