//! Reading the log, and verifying its chain (V6).

use super::{
    App,
    error::Error,
    place::Place,
    ports::{EventFilter, Page, Reader, StoredEvent},
    session::{Actor, Session},
    types::{ChainReport, Listed},
};
use crate::domain::{
    Error as RuleError,
    authority::{Caller, Managed},
    catalogue::Catalogue,
    event::{self, Hash},
    id::AccountId,
    permission::{MANAGE, SystemPermission},
    revision::Revision,
};

/// How many events one call verifies at most.
const VERIFIED_EVENTS_MAX: u32 = 100_000;
/// The epoch that every log starts with.
const FIRST_EPOCH: i64 = 1;
/// How many events are read at a time.
const CHUNK: u32 = 1_000;

impl App {
    /// Lists events in revision order, with the head of the log.
    ///
    /// # Errors
    /// PERMISSION_DENIED without `system.events`, or account-level management of the account asked for.
    /// [`Error::RevisionNotReached`] and [`Error::RevisionLost`] if the log does not have `after`.
    pub async fn list_events(
        &self,
        session: &Session,
        filter: &EventFilter,
        after: Option<Revision>,
        limit: u32,
    ) -> Result<(Listed<StoredEvent>, Revision), Error> {
        let (mut reader, actor) = self.open(session).await?;
        check_may_read(&actor, session, filter.account_id.as_ref())?;
        let head = reader.head().await?;
        let place = Place::named(after);
        place.check(reader.as_mut(), head).await?;
        let page = Page { limit, after: Some(place.revision().number) };
        let items = reader.events(filter, &page.with_one_more()).await?;
        Ok((Listed::of(items, limit), head))
    }

    /// Recomputes the chain over the stored bytes from an event on.
    ///
    /// # Errors
    /// As [`Self::list_events`].
    pub async fn verify_event_chain(
        &self,
        session: &Session,
        account: Option<&AccountId>,
        start_number: i64,
    ) -> Result<ChainReport, Error> {
        let (mut reader, actor) = self.open(session).await?;
        check_may_read(&actor, session, account)?;
        ChainWalk::start(reader.as_mut(), start_number.max(1)).await?.walk(reader.as_mut()).await
    }
}

pub(super) fn check_may_read(actor: &Actor, session: &Session, account: Option<&AccountId>) -> Result<(), RuleError> {
    actor.judge(|caller| {
        if account.is_none() && session.on_behalf_of().is_some() && !caller.holds(SystemPermission::Events) {
            let description = "is required with latchkey-on-behalf-of: a user reads its own account's events (A6)";
            return Err(RuleError::field("account_id", description));
        }
        judge_reading(caller, &actor.catalogue, account)
    })
}

/// Whether a caller may read an account's events, or all of them.
pub(super) fn judge_reading(
    caller: &Caller,
    catalogue: &Catalogue,
    account: Option<&AccountId>,
) -> Result<(), RuleError> {
    if caller.holds(SystemPermission::Events) {
        return Ok(());
    }
    let account = account.ok_or_else(|| RuleError::missing(SystemPermission::Events.name()))?;
    caller.reach(account)?;
    match caller.managed(catalogue) {
        Managed::Account => Ok(()),
        Managed::Teams(_) | Managed::Nothing => Err(RuleError::missing(MANAGE)),
    }
}

/// A walk along the chain.
struct ChainWalk {
    previous: Hash,
    report: ChainReport,
}

impl ChainWalk {
    async fn start(reader: &mut dyn Reader, start: i64) -> Result<Self, Error> {
        let report = |epoch| ChainReport {
            verified_events: 0,
            verified_through: Revision { epoch, number: start - 1 },
            next_start_number: None,
            broken: None,
        };
        if start == 1 {
            return Ok(Self { previous: event::GENESIS, report: report(FIRST_EPOCH) });
        }
        let before = Page { limit: 1, after: Some(start - 2) };
        let found = reader.events(&EventFilter::default(), &before).await?;
        match found.first().filter(|event| event.number == start - 1) {
            Some(before) => Ok(Self { previous: before.hash, report: report(before.epoch) }),
            None => Err(RuleError::field("start_number", "there is no event before it in the log").into()),
        }
    }

    async fn walk(mut self, reader: &mut dyn Reader) -> Result<ChainReport, Error> {
        while self.report.verified_events < VERIFIED_EVENTS_MAX {
            let page = Page { limit: CHUNK, after: Some(self.report.verified_through.number) };
            let chunk = reader.events(&EventFilter::default(), &page).await?;
            let read = chunk.len();
            for stored in chunk {
                if let Err(problem) = self.step(&stored) {
                    self.report.broken = Some((self.report.verified_through.number + 1, problem.to_owned()));
                    return Ok(self.report);
                }
            }
            if read < CHUNK as usize {
                return self.check_head(reader).await;
            }
        }
        self.report.next_start_number = Some(self.report.verified_through.number + 1);
        Ok(self.report)
    }

    fn step(&mut self, stored: &StoredEvent) -> Result<(), &'static str> {
        let expected = self.report.verified_through.number + 1;
        if stored.number != expected {
            return Err("the event is missing: numbers are not gap-free");
        }
        if event::chain(&self.previous, &stored.payload) != stored.hash {
            return Err("the hash does not fit the stored bytes and the predecessor's hash");
        }
        // An event of a later release cannot be compared with its columns here; its bytes verified.
        if !stored.columns_match {
            return Err("the indexed columns differ from the hashed bytes");
        }
        // An operator who accepted a history started the next epoch; nobody goes back to one.
        let last_epoch = self.report.verified_through.epoch;
        let epoch = stored.event.as_ref().map_or(last_epoch, |event| event.revision.epoch);
        if epoch < last_epoch {
            return Err("the epoch goes back");
        }
        self.previous = stored.hash;
        self.report.verified_events += 1;
        self.report.verified_through = Revision { epoch, number: stored.number };
        Ok(())
    }

    async fn check_head(mut self, reader: &mut dyn Reader) -> Result<ChainReport, Error> {
        let (head, hash) = reader.head_hash().await?;
        let last = self.report.verified_through.number;
        if head.number > last {
            self.report.broken =
                Some((last + 1, "the event is missing: the head of the log lies beyond it".to_owned()));
        } else if head.number < last {
            self.report.broken = Some((head.number + 1, "the event lies beyond the head of the log".to_owned()));
        } else if hash != self.previous {
            self.report.broken = Some((head.number, "the head's hash is not this event's".to_owned()));
        } else if head.epoch < self.report.verified_through.epoch {
            self.report.broken = Some((head.number, "the head's epoch is before this event's".to_owned()));
        }
        Ok(self.report)
    }
}
