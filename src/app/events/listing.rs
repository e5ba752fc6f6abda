//! Reading the log, and verifying its chain (V6).

use super::log_position::LogPosition;
use crate::{
    app::{
        App,
        caller::{requester::Actor, session::Session},
        error::AppError,
        ports::{EventFilter, Page, Reader, StoredEvent},
        types::{ChainReport, Listed},
    },
    domain::{
        Error as RuleError,
        authority::{Caller, Managed},
        id::AccountId,
        log::{
            archive::Anchor,
            event::{self, Hash},
            revision::Revision,
        },
        permissions::{
            catalogue::Catalogue,
            permission::{MANAGE, SystemPermission},
        },
    },
};

/// Bytes of events that one call verifies at most: the read that exceeds it is the last.
const CHAIN_BYTES_MAX: usize = 16 << 20;
/// How many events are read and hashed without a pause.
const CHUNK: u32 = 256;

impl App {
    /// Lists events in revision order, with the head of the log. A page looks at a share of rows, whatever passes the
    /// filter: of the log for who may read it all, else of the account.
    ///
    /// # Errors
    /// PERMISSION_DENIED without `system.events`, or account-level management of the account asked for.
    /// [`AppError::RevisionNotReached`] and [`AppError::RevisionLost`] if the log does not have `after`.
    pub async fn list_events(
        &self,
        session: &Session,
        filter: &EventFilter,
        after: Option<Revision>,
        limit: u32,
    ) -> Result<(Listed<StoredEvent, Revision>, Revision), AppError> {
        let (mut reader, actor) = self.open(session).await?;
        check_may_read(&actor, session, filter.account_id.as_ref())?;
        self.trace_log_read(&actor, filter.account_id.as_ref(), "list_events");
        let head = reader.head().await?;
        let place = LogPosition::named(after);
        place.check(reader.as_mut(), head).await?;
        let page = Page { limit, after: Some(place.revision().number) };
        let found = reader.events(filter, &page.with_one_more(), self.limits().list_scan_rows_max).await?;
        Ok((Listed::found(found, limit, StoredEvent::revision), head))
    }

    /// Recomputes the chain over the stored bytes from an event on, over a bounded number of events and bytes.
    ///
    /// Each chunk is a snapshot of its own, so that the walk holds no connection while it hashes, and in each the
    /// caller is judged again. That is as good as one snapshot: events never change, and each is checked against the
    /// one before it. The head is compared in the snapshot in which the events came to their end.
    ///
    /// # Errors
    /// As [`Self::list_events`]. What was archived is not walked: `verified_after` says where the walk began.
    pub async fn verify_event_chain(
        &self,
        session: &Session,
        account: Option<&AccountId>,
        start_number: i64,
    ) -> Result<ChainReport, AppError> {
        let mut walk = {
            let (mut reader, actor) = self.open(session).await?;
            check_may_read(&actor, session, account)?;
            self.trace_log_read(&actor, account, "verify_event_chain");
            ChainWalk::start(reader.as_mut(), start_number.max(1)).await?
        };
        let events_max = self.limits().chain_events_max;
        while !walk.is_over(events_max) {
            let limit = CHUNK.min(events_max - walk.report.verified_events);
            let (chunk, head) = {
                let (mut reader, actor) = self.open(session).await?;
                check_may_read(&actor, session, account)?;
                walk.read(reader.as_mut(), limit).await?
            };
            walk.check(&chunk, head);
            // Hashing keeps a thread that serves others.
            tokio::task::yield_now().await;
        }
        Ok(walk.report)
    }

    /// Leaves a trace of a read of an account's events, or of all, if there is to be one (A3).
    pub(super) fn trace_log_read(&self, actor: &Actor, account: Option<&AccountId>, call: &'static str) {
        self.trace_read(actor, account, call, |caller| judge_reading(caller, &actor.catalogue, account));
    }
}

pub(super) fn check_may_read(actor: &Actor, session: &Session, account: Option<&AccountId>) -> Result<(), RuleError> {
    actor.judge(|caller| {
        if account.is_none() && session.on_behalf_of().is_some() && !caller.holds(SystemPermission::Events) {
            let description = "is required with latchkey-on-behalf-of: a user reads its own account's events";
            return Err(RuleError::field("account_id", description));
        }
        judge_reading(caller, &actor.catalogue, account)
    })
}

/// Checks that a caller may read an account's events, or, without an account, all events.
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
    bytes: usize,
    /// The head was reached, or the chain is broken.
    ended: bool,
}

impl ChainWalk {
    /// Starts a walk at an event, or at the first one that is there if those before it were archived.
    async fn start(reader: &mut dyn Reader, start: i64) -> Result<Self, AppError> {
        let anchor = reader.anchor().await?;
        if start <= anchor.number + 1 {
            return Ok(Self::after(anchor));
        }
        let before = Page { limit: 1, after: Some(start - 2) };
        let found = reader.events(&EventFilter::default(), &before, 1).await?.items;
        match found.first().filter(|event| event.number == start - 1) {
            Some(StoredEvent { epoch, number, hash, .. }) => {
                Ok(Self::after(Anchor { epoch: *epoch, number: *number, hash: *hash }))
            }
            None => Err(RuleError::field("start_number", "there is no event before it in the log").into()),
        }
    }

    fn after(anchor: Anchor) -> Self {
        let after = anchor.revision();
        let report = ChainReport {
            verified_events: 0,
            verified_after: after,
            verified_through: after,
            next_start_number: Some(after.number + 1),
            broken: None,
        };
        Self { previous: anchor.hash, report, bytes: 0, ended: false }
    }

    fn is_over(&self, events_max: u32) -> bool {
        self.ended || self.report.verified_events >= events_max || self.bytes >= CHAIN_BYTES_MAX
    }

    /// Reads the next events, and the head if there are no more.
    async fn read(
        &mut self,
        reader: &mut dyn Reader,
        limit: u32,
    ) -> Result<(Vec<StoredEvent>, Option<(Revision, Hash)>), AppError> {
        let through = self.report.verified_through.number;
        let page = Page { limit, after: Some(through) };
        let found = reader.events(&EventFilter::default(), &page, limit).await?;
        if found.items.first().is_some_and(|event| event.number != through + 1) {
            let anchor = reader.anchor().await?;
            // What comes next was archived while the walk was on its way.
            if anchor.number > through {
                let verified_events = self.report.verified_events;
                *self = Self { bytes: self.bytes, ..Self::after(anchor) };
                self.report.verified_events = verified_events;
            }
        }
        let is_end = found.items.len() < limit as usize && found.looked_through.is_none();
        Ok((found.items, if is_end { Some(reader.head_hash().await?) } else { None }))
    }

    fn check(&mut self, events: &[StoredEvent], head: Option<(Revision, Hash)>) {
        for stored in events {
            self.bytes += stored.payload.len();
            if let Err(problem) = self.step(stored) {
                self.end(Some((self.report.verified_through.number + 1, problem)));
                return;
            }
        }
        self.report.next_start_number = Some(self.report.verified_through.number + 1);
        if let Some((head, hash)) = head {
            self.end(self.head_problem(head, hash));
        }
    }

    fn end(&mut self, broken: Option<(i64, &str)>) {
        self.ended = true;
        self.report.next_start_number = None;
        self.report.broken = broken.map(|(number, problem)| (number, problem.to_owned()));
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
            return Err("the indexed columns or the details differ from the hashed bytes");
        }
        // An operator who accepted a history started the next epoch; no log goes back to an earlier one.
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

    fn head_problem(&self, head: Revision, hash: Hash) -> Option<(i64, &'static str)> {
        let last = self.report.verified_through;
        if head.number > last.number {
            Some((last.number + 1, "the event is missing: the head of the log lies beyond it"))
        } else if head.number < last.number {
            Some((head.number + 1, "the event lies beyond the head of the log"))
        } else if hash != self.previous {
            Some((head.number, "the head's hash is not this event's"))
        } else if head.epoch < last.epoch {
            Some((head.number, "the head's epoch is before this event's"))
        } else {
            None
        }
    }
}
