//! Erasing what people typed (names, display names, comments, metadata), on request: from past events, of which the
//! chain hashes commitments only, and from what is deleted. Live objects keep theirs: they are edited or deleted.

use async_trait::async_trait;

use crate::{
    app::{
        App,
        caller::requester::Requester,
        error::AppError,
        mutation::{Mutation, Plan},
        ports::{Append, Erased, PersonalDataOf, Tx},
    },
    domain::{
        id::AccountId,
        log::event::{Change, EventDraft, EventKind, Target},
    },
};

/// Events, and rows, of one transaction at most.
const BATCH: u32 = 5_000;

struct Erase(PersonalDataOf);

impl App {
    /// Erases what people typed of an object, or of a whole account, in as many transactions as it takes; each is an
    /// event. Interrupted, it resumes when it is repeated; if nothing is left, it changes nothing.
    ///
    /// # Errors
    /// Only the store's.
    pub async fn erase_personal_data(&self, of: PersonalDataOf) -> Result<Erased, AppError> {
        let mut total = Erased::default();
        loop {
            let erased = self.run(Erase(of.clone()), false).await?.output;
            total.events += erased.events;
            total.rows += erased.rows;
            if erased.events < BATCH && erased.rows < BATCH {
                return Ok(total);
            }
        }
    }
}

#[async_trait]
impl Mutation for Erase {
    type Output = Erased;
    const NAME: &'static str = "erase_personal_data";

    fn requester(&self) -> &Requester {
        &Requester::Upkeep
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.0.account_id)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let PersonalDataOf { account_id, target, .. } = &self.0;
        let erased = tx.erase_personal_data(&self.0, BATCH).await?;
        if erased == Erased::default() {
            return Ok(Plan::unchanged(erased));
        }
        let count =
            |field: &str, count: u32| Change { field: field.into(), after: count.to_string(), ..Change::default() };
        let whole = || Target { kind: "account".into(), id: account_id.to_string() };
        let draft = EventDraft {
            kind: EventKind::PersonalDataErased,
            account_id: Some(account_id.clone()),
            actor: None,
            target: target.clone().unwrap_or_else(whole),
            changes: vec![count("erased_events", erased.events), count("erased_rows", erased.rows)],
            affected_key_ids: vec![],
            break_glass: false,
        };
        Ok(Plan::one(erased, Append { draft, stamps: vec![] }))
    }
}
