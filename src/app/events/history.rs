//! Accepting the database's history, after events were lost or replaced: a new epoch starts.
//!
//! Every revision of the new epoch is above all of the old ones, so whatever replicas remember of the
//! history that was lost is refused by their fences, and they follow this one without a restart.

use async_trait::async_trait;

use crate::{
    app::{
        App,
        caller::requester::Requester,
        error::AppError,
        mutation::{Mutation, Plan},
        ports::{Append, Tx},
        types::AcceptedHistory,
    },
    domain::{
        id::AccountId,
        log::{
            event::{Change, EventDraft, EventKind, Target},
            revision::Revision,
        },
    },
};

struct AcceptHistory;

impl App {
    /// Starts a new epoch at the database's history as it is: for an operator with the database's own
    /// credentials, `latchkey accept-history`. Repeating it starts another one, which does no harm but
    /// to caches.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn accept_history(&self) -> Result<AcceptedHistory, AppError> {
        let done = self.run(AcceptHistory, false).await?;
        Ok(AcceptedHistory { before: done.output, after: done.propagation.revision })
    }
}

#[async_trait]
impl Mutation for AcceptHistory {
    type Output = Revision;
    const NAME: &'static str = "accept_history";

    /// Requests it as upkeep: no replica follows the new history before it joins it, so there is none to wait for.
    fn requester(&self) -> &Requester {
        &Requester::Upkeep
    }

    /// Locks no account: nothing that an authority depends on changes, and the head itself is locked by starting the
    /// epoch.
    fn account(&self) -> Option<&AccountId> {
        None
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let before = tx.start_epoch().await?;
        let epoch = Change {
            field: "epoch".into(),
            before: before.epoch.to_string(),
            after: (before.epoch + 1).to_string(),
            ..Change::default()
        };
        let draft = EventDraft {
            kind: EventKind::HistoryAccepted,
            account_id: None,
            actor: None,
            target: Target { kind: "history".into(), id: String::new() },
            changes: vec![epoch],
            affected_key_ids: vec![],
            break_glass: false,
        };
        Ok(Plan::one(before, Append { draft, stamps: vec![] }))
    }
}
