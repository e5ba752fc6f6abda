//! WatchEvents: the log from a revision on, live.

use std::time::Duration;

use futures_util::{Stream, stream};

use super::{
    App, Error,
    events::check_may_read,
    ports::{EventFilter, Page, StoredEvent},
    session::{Maker, Session},
};
use crate::domain::{id::AccountId, revision::Revision};

/// Events read at a time.
const CHUNK: u32 = 100;
/// How long a watcher hears nothing at most: a heartbeat carries the head.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What a watcher hears.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The next event; `None` in a heartbeat.
    pub event: Option<StoredEvent>,
    /// The head of the log when it was read.
    pub head: Revision,
}

struct Watch {
    app: App,
    session: Session,
    account: Option<AccountId>,
    after: i64,
    ready: std::collections::VecDeque<StoredEvent>,
    head: Revision,
}

impl App {
    /// Streams events after a number, live, in order. The caller's authority is judged again whenever
    /// the log is read; the stream ends with the reason when it is gone.
    ///
    /// # Errors
    /// As [`App::list_events`].
    pub async fn watch_events(
        &self,
        session: &Session,
        account: Option<AccountId>,
        after: i64,
    ) -> Result<impl Stream<Item = Result<Watched, Error>> + Send + use<>, Error> {
        let head = self
            .list_events(
                session,
                &EventFilter { account_id: account.clone(), ..EventFilter::default() },
                Some(i64::MAX),
                1,
            )
            .await?
            .1;
        let watch =
            Watch { app: self.clone(), session: session.clone(), account, after, ready: Default::default(), head };
        Ok(stream::try_unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Ok(Some((next, watch)))
        }))
    }
}

impl Watch {
    async fn next(&mut self) -> Result<Watched, Error> {
        let mut changes = self.app.verifier().applied_changes();
        let silent_until = tokio::time::Instant::now() + HEARTBEAT;
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = event.number;
                return Ok(Watched { event: Some(event), head: self.head });
            }
            self.read().await?;
            if self.ready.is_empty() && tokio::time::timeout_at(silent_until, changes.changed()).await.is_err() {
                return Ok(Watched { event: None, head: self.head });
            }
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        let mut reader = self.app.store().snapshot().await?;
        let actor = Maker::Session(self.session.clone()).actor(reader.as_mut()).await?;
        check_may_read(&actor, &self.session, self.account.as_ref())?;
        let filter = EventFilter { account_id: self.account.clone(), ..EventFilter::default() };
        let page = Page { limit: CHUNK, after: Some(self.after) };
        self.ready = reader.events(&filter, &page).await?.into();
        self.head = reader.head().await?;
        Ok(())
    }
}
