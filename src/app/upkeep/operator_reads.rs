//! Reads that only the reach of `system.operate` lets through leave a trace (A3): a line in the program's log for each,
//! and an event in the account's log, at most one an hour for each operator's key and account.
//!
//! A read must neither fail nor slow down by it: it leaves a note here, and housekeeping has the notes written.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    app::{
        App,
        caller::session::Actor,
        error::Error,
        fairness::turns::Payer,
        mutation::{Mutation, Plan},
        ports::{Append, Lane, Locks, Tx},
        propagation::barrier::Wait,
    },
    domain::{
        Error as RuleError,
        authority::Caller,
        id::{AccountId, KeyId},
        log::event::{EventDraft, EventKind, Principal, Target, value_change},
    },
};

/// Notes that wait to be written at most; more are dropped and counted.
const WAITING_MAX: usize = 1_000;
/// How long a note of the same key and account is not left again. The hour is the database's to judge: other replicas
/// leave notes too.
const NOTED_SPAN: Duration = Duration::from_secs(60);
/// How many notes are remembered for that.
const NOTED_MAX: usize = 10_000;

/// The notes of a process.
#[derive(Default)]
pub(crate) struct OperatorReads {
    notes: Mutex<Notes>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Notes {
    noted: HashMap<(KeyId, AccountId), Instant>,
    waiting: VecDeque<OperatorRead>,
}

/// A read to have in the log.
#[derive(Clone, Debug)]
pub(crate) struct OperatorRead {
    /// The key, and the user that it acted for by the reach of `system.operate`.
    reader: Principal,
    /// Whose log has it: for what is no single account's, that of account `system`.
    account: AccountId,
    /// The account that was read; empty for all.
    target: String,
    /// The use-case.
    call: &'static str,
}

// === impl OperatorReads ===

impl OperatorReads {
    fn leave(&self, read: OperatorRead, now: Instant) {
        let mut notes = self.notes();
        let of = (read.reader.key_id, read.account.clone());
        if notes.noted.get(&of).is_some_and(|noted| now.duration_since(*noted) < NOTED_SPAN) {
            return;
        }
        if notes.waiting.len() >= WAITING_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if notes.noted.len() >= NOTED_MAX {
            // What is left again is a note too many, which the database finds to be one.
            notes.noted.clear();
        }
        notes.noted.insert(of, now);
        notes.waiting.push_back(read);
    }

    fn next(&self) -> Option<OperatorRead> {
        self.notes().waiting.pop_front()
    }

    /// Has a note that could not be written wait on, before all others.
    fn put_back(&self, read: OperatorRead) {
        self.notes().waiting.push_front(read);
    }

    /// How many notes found no room.
    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    pub async fn record_operator_reads(&self) -> Result<(), Error> {
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

    fn payer(&self) -> Payer {
        Payer::local()
    }

    fn lane(&self) -> Lane {
        Lane::Upkeep
    }

    fn locks(&self) -> Locks {
        Locks { shared: [self.0.account.clone()].into(), ..Locks::default() }
    }

    fn wait(&self) -> Wait {
        Wait::NONE
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, Error> {
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn read(key: u128, account: &str) -> OperatorRead {
        let key_id = KeyId::from_uuid(Uuid::from_u128(key));
        let reader = Principal { key_id, account_id: AccountId::system(), user_id: None };
        let account = AccountId::from_stored(account);
        OperatorRead { reader, target: account.to_string(), account, call: "list_api_keys" }
    }

    #[test]
    fn a3_one_note_of_a_key_and_account_a_minute() {
        let (reads, start) = (OperatorReads::default(), Instant::now());
        for (key, account) in [(1, "a"), (1, "a"), (1, "b"), (2, "a"), (1, "a")] {
            reads.leave(read(key, account), start);
        }
        let count = || std::iter::from_fn(|| reads.next()).count();
        assert_eq!(count(), 3);
        reads.leave(read(1, "a"), start + NOTED_SPAN / 2);
        assert_eq!(count(), 0);
        reads.leave(read(1, "a"), start + NOTED_SPAN);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a3_notes_are_bounded_and_what_finds_no_room_is_counted() {
        let (reads, now) = (OperatorReads::default(), Instant::now());
        for n in 0..WAITING_MAX + 7 {
            reads.leave(read(1, &n.to_string()), now);
        }
        assert_eq!(reads.dropped(), 7);
        // What was dropped is not taken for noted.
        let first = reads.next().expect("many");
        reads.leave(read(1, &WAITING_MAX.to_string()), now);
        assert_eq!(reads.notes().waiting.len(), WAITING_MAX);
        // What was put back comes first.
        reads.put_back(first.clone());
        assert_eq!(reads.next().map(|read| read.account), Some(first.account));
        for n in 0..2 * NOTED_MAX {
            reads.leave(read(2, &n.to_string()), now);
            reads.next();
        }
        assert!(reads.notes().noted.len() <= NOTED_MAX);
    }
}
