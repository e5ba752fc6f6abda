//! WatchEvents: the log from a position on, live.
//!
//! Each read is one snapshot: the watcher's authority is judged in it, then whether the log still has the
//! place to go on from, and only then come the events after it. So a watcher misses nothing unnoticed,
//! whatever happened to the log's history. [`WatchAuthorization`] says, between two reads, whether it may go on.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    listing::{check_may_read, judge_reading},
    log_position::LogPosition,
    watches::OpenWatch,
};
use crate::{
    app::{
        App, AppError,
        caller::{requester::key_caller, session::Session},
        ports::{EventFilter, Page, ScannedPage, StoredEvent},
    },
    domain::{authority::named::Named, id::AccountId, log::revision::Revision},
    verify::{FollowerState, VerifyError},
};

/// Events read at a time, and so how many of a watcher wait in memory at most.
const CHUNK: u32 = 32;
/// A watcher at the head of the log reads, and checks its authorization, at most once in this time, however
/// fast the log grows. One with a backlog reads as its client takes it.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// The longest time that a watcher receives nothing: half of what it is promised.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often a watch by an operator leaves a trace (A3): a trace for each read would add nothing.
const TRACE_PERIOD: Duration = Duration::from_secs(60);
/// How often it is checked whether a watcher's authority has ended by time alone.
const AUTHORIZATION_CHECK_PERIOD: Duration = Duration::from_millis(500);

/// What a watcher receives.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The next event; `None` in a heartbeat.
    pub event: Option<StoredEvent>,
    /// The head of the log when it was read. In a heartbeat, all events up to it were sent.
    pub head: Revision,
}

/// A watch that was opened.
pub struct Watching {
    /// The caller's right to it.
    pub authorization: Arc<WatchAuthorization>,
    /// The events, in order; an error ends it.
    pub events: BoxStream<'static, Result<Watched, AppError>>,
}

/// A caller's right to go on watching: to be asked again before anything is given to it.
pub struct WatchAuthorization {
    app: App,
    session: Session,
    account: Option<AccountId>,
    /// The latest revision at which the caller was judged, and might watch.
    judged: Mutex<Revision>,
}

struct Watch {
    authorization: Arc<WatchAuthorization>,
    /// All up to here is in `ready`, or was sent.
    place: LogPosition,
    ready: VecDeque<StoredEvent>,
    head: Revision,
    /// The last read reached the head.
    caught_up: bool,
    read_at: Instant,
    sent_at: Instant,
    /// When a trace of an operator's reading was left last, if it is to leave one.
    traced_at: Option<Instant>,
    applied: watch::Receiver<Option<Revision>>,
    _open: OpenWatch,
}

// === impl App ===

impl App {
    /// Opens a watch of the events after a revision, or of all.
    ///
    /// # Errors
    /// As [`App::list_events`]; [`AppError::ShareExceeded`] if too many watches are open.
    pub async fn watch_events(
        &self,
        session: &Session,
        account: Option<AccountId>,
        after: Option<Revision>,
    ) -> Result<Watching, AppError> {
        let open = self.watches().open(session.payer(), session.audits())?;
        let judged = Mutex::new(LogPosition::START.revision());
        let authorization =
            Arc::new(WatchAuthorization { app: self.clone(), session: session.clone(), account, judged });
        let now = Instant::now();
        let mut watch = Watch {
            authorization: authorization.clone(),
            place: LogPosition::named(after),
            ready: VecDeque::new(),
            head: LogPosition::START.revision(),
            caught_up: false,
            read_at: now,
            sent_at: now,
            traced_at: None,
            applied: self.verifier().applied_changes(),
            _open: open,
        };
        watch.read().await?;
        let events = stream::try_unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Ok(Some((next, watch)))
        });
        Ok(Watching { authorization, events: events.boxed() })
    }
}

// === impl WatchAuthorization ===

impl WatchAuthorization {
    /// Checks that the caller may be given what was read for it (V1): from memory, unless it acts for a user, who is
    /// judged again in the store after every change.
    ///
    /// # Errors
    /// The caller may watch no longer, or that cannot be known.
    pub async fn check(&self) -> Result<(), AppError> {
        self.check_history()?;
        let entry = self.app.standing_entry(&self.session).await?;
        if self.session.on_behalf_of().is_none() {
            let (caller, _) = key_caller(entry.facts(), Named::default());
            return Ok(judge_reading(&caller, entry.catalogue(), self.account.as_ref())?);
        }
        if self.is_judged() {
            return Ok(());
        }
        let turn = self.app.watch_turn(&self.session.payer()).await?;
        // Another task may have judged it meanwhile.
        if self.is_judged() {
            return Ok(());
        }
        let (mut reader, actor) = self.app.open_watch(&self.session, turn).await?;
        check_may_read(&actor, &self.session, self.account.as_ref())?;
        self.judged_at(reader.head().await?);
        Ok(())
    }

    /// Reports whether nothing has happened since the caller was judged last, as far as this replica may answer.
    fn is_judged(&self) -> bool {
        // The lease before `applied`, as a verification does.
        let verifier = self.app.verifier();
        verifier.in_service() && verifier.applied().is_some_and(|applied| applied <= *self.judged())
    }

    /// Completes with the reason once the caller may watch no longer. An outage does not end it: a task that has
    /// something to send finds that out for itself.
    pub async fn ended(&self) -> AppError {
        let mut changes = self.app.verifier().applied_changes();
        loop {
            if let Err(diverged) = self.check_history() {
                return diverged;
            }
            match self.check().await {
                Ok(()) | Err(AppError::Store(_) | AppError::Overloaded | AppError::ShareExceeded(_)) => {}
                Err(ended) => return ended,
            }
            if self.session.on_behalf_of().is_some() {
                // Each check asks the store. Reads notice what changes with the log; this need only notice time.
                tokio::time::sleep(AUTHORIZATION_CHECK_PERIOD).await;
            } else {
                let _ = timeout(AUTHORIZATION_CHECK_PERIOD, changes.changed()).await;
                // One check for all that happens in a busy moment: whatever is sent meanwhile is checked by itself.
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }

    /// Checks that a watch may go on: the history in the database is one that an operator has accepted, if it changed.
    fn check_history(&self) -> Result<(), AppError> {
        match self.app.verifier().follower_state() {
            FollowerState::Diverged | FollowerState::OtherDatabase => Err(VerifyError::Unavailable.into()),
            FollowerState::Starting | FollowerState::Following => Ok(()),
        }
    }

    fn judged(&self) -> std::sync::MutexGuard<'_, Revision> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judged_at(&self, revision: Revision) {
        let mut judged = self.judged();
        *judged = revision.max(*judged);
    }
}

// === impl Watch ===

impl Watch {
    async fn next(&mut self) -> Result<Watched, AppError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(self.send(Some(event)));
            }
            if self.caught_up {
                if self.sent_at.elapsed() >= HEARTBEAT {
                    return Ok(self.send(None));
                }
                self.until_due().await;
            }
            self.read().await?;
        }
    }

    fn send(&mut self, event: Option<StoredEvent>) -> Watched {
        self.sent_at = Instant::now();
        Watched { event, head: self.head }
    }

    /// Waits until the log has grown or a heartbeat is due.
    async fn until_due(&mut self) {
        sleep_until(self.read_at + READ_PAUSE).await;
        let seen = self.place.revision();
        let grown = self.applied.wait_for(|applied| applied.is_some_and(|applied| applied > seen));
        // Not by either: a history that was lost is noticed by the read, or by the follower.
        let _ = timeout_at(self.sent_at + HEARTBEAT, grown).await;
    }

    async fn read(&mut self) -> Result<(), AppError> {
        let WatchAuthorization { app, session, account, .. } = &*self.authorization;
        self.authorization.check_history()?;
        let turn = app.watch_turn(&session.payer()).await?;
        let (mut reader, actor) = app.open_watch(session, turn).await?;
        check_may_read(&actor, session, account.as_ref())?;
        if self.traced_at.is_none_or(|traced| traced.elapsed() >= TRACE_PERIOD) {
            app.trace_log_read(&actor, account.as_ref(), "watch_events");
            self.traced_at = Some(Instant::now());
        }
        let (head, hash) = reader.head_hash().await?;
        self.place.check(reader.as_mut(), head).await?;
        let filter = EventFilter { account_id: account.clone(), ..EventFilter::default() };
        let page = Page { limit: CHUNK, after: Some(self.place.revision().number) };
        // Without other filters, no row is looked at that is not the watcher's.
        let ScannedPage { items: events, looked_through } = reader.events(&filter, &page, CHUNK).await?;
        self.authorization.judged_at(head);
        self.head = head;
        self.read_at = Instant::now();
        // Short of a full page, and of the bytes that are read at a time, there is nothing more for this watcher up to
        // the head.
        self.caught_up = looked_through.is_none() && events.len() < CHUNK as usize;
        self.place = match events.last() {
            Some(last) if !self.caught_up => LogPosition::after(last),
            _ => LogPosition::head(head, hash),
        };
        self.ready = events.into();
        Ok(())
    }
}
