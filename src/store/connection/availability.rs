//! Detects that the database is down ("away"), so that calls fail at once instead of each waiting for its time limit.
//!
//! A statement that is not answered soon, a connection that ends or cannot be made: each of these is a suspicion and
//! nothing more, for a lock, a slow statement or one ended backend is no outage. A suspicion starts one probe, which
//! connects on its own. The database is away once the probe failed twice and *nothing* was answered on any connection
//! since the suspicion; it is back with the first answer, be it the probe's or another's. An error that the server sent
//! is an answer too.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{connect, sqlstate};
use crate::app::{error::StoreError, ports::StoreResult};

/// How long a statement may go without an answer before the database is suspected. Less than any time limit, so that
/// what gives up first has raised the suspicion.
pub const SUSPECTED_AFTER: Duration = Duration::from_millis(250);
/// How long one attempt of the probe may take while the database is away: one that is back is noticed at most this
/// much later.
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// Until then an attempt may take this part of the time limit of statements: an operator who sets a high limit, for a
/// slow database or a busy machine, gets a patient probe too.
const PROBES_PER_TIMEOUT: u32 = 3;
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Attempts that must fail in a row before the database is away.
const FAILURES_MIN: u32 = 2;
/// The pause between two attempts.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// Tracks whether the database answers. Cheap to clone.
#[derive(Clone)]
pub struct Availability(Arc<AvailabilityState>);

struct AvailabilityState {
    url: String,
    /// How long an attempt of the probe may take before the database is away.
    patience: Duration,
    runtime: Handle,
    started: Instant,
    /// Microseconds since `started` at which something was last answered.
    answered_micros: AtomicI64,
    /// A probe is under way.
    probing: AtomicBool,
    closed: AtomicBool,
    /// Since when the database is away; `None` while it is not.
    away: watch::Sender<Option<Instant>>,
    /// Held while `away` changes, so that each change is logged once.
    changing: Mutex<()>,
}

/// Calls fail at once while the database is known to be away.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer; it is probed until it does")]
struct KnownAway;

// === impl Availability ===

impl Availability {
    /// Tracks the database at a URL, which is assumed to answer. `statement` is the time limit of a statement.
    pub fn new(url: String, statement: Duration, runtime: Handle) -> Self {
        Self(Arc::new(AvailabilityState {
            url,
            patience: (statement / PROBES_PER_TIMEOUT).max(PROBE_TIMEOUT_MIN),
            runtime,
            started: Instant::now(),
            answered_micros: AtomicI64::new(-1),
            probing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            away: watch::Sender::new(None),
            changing: Mutex::default(),
        }))
    }

    /// Fails if the database is known to be away.
    pub fn check(&self) -> StoreResult<()> {
        if self.is_away() { Err(known_away()) } else { Ok(()) }
    }

    /// Completes once the database is known to be away.
    pub async fn known_away(&self) -> StoreError {
        // The sender is in `self`: it outlives the wait.
        let _ = self.0.away.subscribe().wait_for(Option::is_some).await;
        known_away()
    }

    /// Waits for an answer, and suspects the database if it is late, or if the error was not the server's.
    pub async fn watch<T, E>(
        &self,
        asked: impl Future<Output = Result<T, E>>,
        is_answer: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut asked = std::pin::pin!(asked);
        let since = self.now_micros();
        let result = match timeout(SUSPECTED_AFTER, &mut asked).await {
            Ok(result) => result,
            Err(_) => {
                self.suspect(since);
                asked.await
            }
        };
        match &result {
            Err(error) if !is_answer(error) => self.suspect(since),
            _ => self.answered(),
        }
        result
    }

    /// Records that something was answered just now: the database is there.
    pub fn answered(&self) {
        self.0.answered_micros.fetch_max(self.now_micros(), Ordering::AcqRel);
        if self.is_away() {
            self.0.change(None);
        }
    }

    /// Starts a probe unless one is under way.
    fn suspect(&self, since_micros: i64) {
        if self.0.closed.load(Ordering::Acquire) || self.0.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let known = self.clone();
        self.0.runtime.spawn(async move {
            known.probe(since_micros).await;
            known.0.probing.store(false, Ordering::Release);
        });
    }

    async fn probe(&self, since_micros: i64) {
        let mut failures = 0;
        while !self.0.closed.load(Ordering::Acquire) && !self.answered_since(since_micros) {
            let limit = if self.is_away() { self.0.patience.min(PROBE_TIMEOUT_MAX) } else { self.0.patience };
            let connect = connect::establish(self.0.url.clone(), limit, None);
            match connect.await {
                Err(error) if !sqlstate::connecting_is_answer(&error) => {}
                _ => self.answered(),
            }
            if !self.answered_since(since_micros) {
                failures += 1;
                if failures >= FAILURES_MIN {
                    self.0.change(Some(Instant::now()));
                }
                sleep(PROBE_PAUSE).await;
            }
        }
        if self.answered_since(since_micros) {
            // What was answered while it was said to be away may not have seen that.
            self.0.change(None);
        }
    }

    fn answered_since(&self, micros: i64) -> bool {
        self.0.answered_micros.load(Ordering::Acquire) > micros
    }

    /// Ends the probe, if there is one: the store is no longer used.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    fn is_away(&self) -> bool {
        self.0.away.borrow().is_some()
    }

    fn now_micros(&self) -> i64 {
        i64::try_from(self.0.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

// === impl AvailabilityState ===

impl AvailabilityState {
    /// Records a change, and logs it once.
    fn change(&self, away: Option<Instant>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *self.away.borrow();
        match (before, away) {
            (None, Some(_)) => {
                tracing::warn!(
                    "the database does not answer: calls that need it are UNAVAILABLE until it answers again"
                );
            }
            (Some(since), None) => {
                let away_ms = since.elapsed().as_millis();
                tracing::info!(away_ms, "the database answers again");
            }
            (None, None) | (Some(_), Some(_)) => return,
        }
        self.away.send_replace(away);
    }
}

fn known_away() -> StoreError {
    StoreError::Unavailable(KnownAway.into())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::net::TcpListener;

    use super::*;

    /// Starts a server that accepts and never answers, as a frozen one does, and returns it with its availability.
    async fn frozen() -> (Availability, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        (Availability::new(format!("postgres://u@127.0.0.1:{port}/d"), PROBE_TIMEOUT_MIN, Handle::current()), listener)
    }

    #[tokio::test]
    async fn a_database_that_answers_nothing_is_away_and_the_first_answer_brings_it_back() {
        let (known, _listener) = frozen().await;
        assert!(known.check().is_ok());
        let asked = known.clone();
        let hangs = tokio::spawn(async move { asked.watch(pending::<StoreResult<()>>(), sqlstate::is_answer).await });
        assert!(matches!(known.known_away().await, StoreError::Unavailable(_)));
        assert!(known.check().is_err());
        assert!(known.watch(ready(Ok(())), sqlstate::is_answer).await.is_ok());
        assert!(known.check().is_ok());
        hangs.abort();
        known.close();
    }

    #[tokio::test]
    async fn while_anything_is_answered_a_slow_statement_or_a_failed_probe_is_no_outage() {
        let (known, _listener) = frozen().await;
        let asked = known.clone();
        let hangs = tokio::spawn(async move { asked.watch(pending::<StoreResult<()>>(), sqlstate::is_answer).await });
        for _ in 0..30 {
            assert!(
                known
                    .watch(ready(Err::<(), _>(StoreError::Conflict("lock timeout".into()))), sqlstate::is_answer)
                    .await
                    .is_err()
            );
            assert!(known.check().is_ok());
            sleep(Duration::from_millis(50)).await;
        }
        hangs.abort();
        known.close();
    }

    #[tokio::test]
    async fn a_database_that_refuses_connections_is_away() {
        let (known, listener) = frozen().await;
        drop(listener);
        let refused = StoreError::Unavailable("refused".into());
        assert!(known.watch(ready(Err::<(), _>(refused)), sqlstate::is_answer).await.is_err());
        known.known_away().await;
        known.close();
    }
}
