//! Reads that only the reach of `system.operate` lets through leave a trace (A3): a line in the program's log for each,
//! and an event in the account's log, at most one an hour for each operator's key and account.
//!
//! A read must neither fail nor slow down by it: it leaves a note here, and housekeeping has the notes written.

use async_trait::async_trait;
use tokio::time::Instant;

use super::operator_read_queue::OperatorRead;
use crate::{
    app::{
        App,
        caller::requester::{Actor, Requester},
        error::AppError,
        mutation::{Mutation, Plan},
        ports::{Append, Locks, Tx},
    },
    domain::{
        Error as RuleError,
        authority::Caller,
        id::AccountId,
        log::event::{EventDraft, EventKind, Target, value_change},
    },
};

// === impl App ===

impl App {
    /// Leaves a trace of a read if a rule would refuse it without `system.operate`. No account: all of them.
    pub(crate) fn trace_read(
        &self,
        actor: &Actor,
        account: Option<&AccountId>,
        call: &'static str,
        rule: impl FnOnce(&Caller) -> Result<(), RuleError>,
    ) {
        let Some(reader) = actor.principal.as_ref().filter(|_| actor.reads_by_operate(rule)) else { return };
        let target = account.map(ToString::to_string).unwrap_or_default();
        let user = reader.user_id.as_ref().map(ToString::to_string).unwrap_or_default();
        tracing::info!(
            target: "latchkey::audit",
            key_id = %reader.key_id,
            user_id = user,
            account_id = target,
            call,
            "an operator read what only system.operate lets it read"
        );
        let account = account.cloned().unwrap_or_else(AccountId::system);
        self.operator_reads().leave(OperatorRead { reader: reader.clone(), account, target, call }, Instant::now());
    }

    /// Writes the notes that wait; also a step of a clean stop.
    ///
    /// # Errors
    /// What could not be written waits on.
    pub async fn record_operator_reads(&self) -> Result<(), AppError> {
        self.observer().operator_reads_dropped(self.operator_reads().dropped());
        while let Some(read) = self.operator_reads().next() {
            if let Err(error) = self.run(RecordOperatorRead(read.clone()), false).await {
                self.operator_reads().put_back(read);
                return Err(error);
            }
        }
        Ok(())
    }
}

struct RecordOperatorRead(OperatorRead);

#[async_trait]
impl Mutation for RecordOperatorRead {
    type Output = ();
    const NAME: &'static str = "record_operator_read";

    fn requester(&self) -> &Requester {
        &Requester::Upkeep
    }

    fn account(&self) -> Option<&AccountId> {
        None
    }

    /// Returns a shared lock of the account: it does not change, and only must not be created or erased meanwhile.
    fn locks(&self) -> Locks {
        Locks { shared: [self.0.account.clone()].into(), ..Locks::default() }
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, AppError> {
        let OperatorRead { reader, account, target, call } = &self.0;
        let now = tx.now().await?;
        // An account that never was has no log. One that was deleted has.
        if tx.account(account).await?.is_none() || !tx.note_operator_read(reader.key_id, account, now).await? {
            return Ok(Plan::unchanged(()));
        }
        let draft = EventDraft {
            kind: EventKind::AccountReadByOperator,
            account_id: Some(account.clone()),
            actor: Some(reader.clone()),
            target: Target { kind: "account".into(), id: target.clone() },
            changes: value_change("call", "", call).into_iter().collect(),
            affected_key_ids: Vec::new(),
            break_glass: true,
        };
        // Nothing changed: no etag does.
        Ok(Plan::one((), Append { draft, stamps: Vec::new() }))
    }
}
