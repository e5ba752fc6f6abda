//! A connection out of a pool, and the bookkeeping that keeps one in an unknown state from ever being used again.

use std::{future::Future, time::Duration};

use diesel::QueryResult;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection, pooled_connection::deadpool::Object};
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{availability::Availability, sqlstate};
use crate::app::{error::StoreError, ports::StoreResult};

/// A connection out of a pool. It goes back only in a known state: inside a transaction, or after the future of a
/// statement was dropped, it is rolled back first; one whose answer did not come in time is closed.
pub struct Connection {
    object: Option<Object<AsyncPgConnection>>,
    state: ConnectionState,
    failed: bool,
    timeout: Duration,
    runtime: Handle,
    availability: Availability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// Fit for the pool.
    Clean,
    /// In a transaction, no statement under way.
    InTransaction,
    /// A statement is under way. Given up with it, the connection is fit again once its answer has come and the
    /// transaction is rolled back.
    Busy,
    /// It did not answer in time, or is no longer a primary: never used again.
    Broken,
}

/// Runs one statement on a [`Connection`].
pub struct StatementRun<'a> {
    state: &'a mut ConnectionState,
    failed: &'a mut bool,
    timeout: Duration,
    availability: &'a Availability,
}

/// Runs one statement on a connection, or on what has one, within its time limit.
macro_rules! run {
    ($connection:expr, $conn:ident => $statement:expr) => {{
        let ($conn, statement_run) = $connection.parts();
        statement_run.run($statement).await
    }};
}
pub(in crate::store) use run;

// === impl Connection ===

impl Connection {
    /// Wraps a connection that a pool has just given out.
    pub(super) fn new(
        object: Object<AsyncPgConnection>,
        timeout: Duration,
        runtime: Handle,
        availability: Availability,
    ) -> Self {
        Self { object: Some(object), state: ConnectionState::Clean, failed: false, timeout, runtime, availability }
    }

    /// Splits into the raw connection and the run of one statement on it.
    pub(in crate::store) fn parts(&mut self) -> (&mut AsyncPgConnection, StatementRun<'_>) {
        let Self { object, state, failed, timeout, availability, .. } = self;
        let object = object.as_mut().expect("only drop and discard take it");
        (object, StatementRun { state, failed, timeout: *timeout, availability })
    }

    /// Opens a transaction with the statements of `begin`, in one round trip.
    pub async fn begin(&mut self, begin: &str) -> StoreResult<()> {
        let begun = run!(self, conn => conn.batch_execute(begin));
        self.begun(begun)
    }

    /// Records that statements that open a transaction were sent; passes their result on.
    pub fn begun<T>(&mut self, result: StoreResult<T>) -> StoreResult<T> {
        // If the server refused one, it may have done so before BEGIN or after it: rolled back either way.
        if self.state == ConnectionState::Clean {
            self.state = ConnectionState::InTransaction;
        }
        result
    }

    fn mark_clean(&mut self) {
        self.state = ConnectionState::Clean;
    }

    /// Commits the transaction. An unknown outcome is [`StoreError::OutcomeUnknown`].
    pub async fn commit(mut self) -> StoreResult<()> {
        if self.failed {
            return Err(sqlstate::commit_after_failure());
        }
        let object = self.object.as_mut().expect("only drop and discard take it");
        self.state = ConnectionState::Broken;
        // The time limit closes the connection and cancels nothing: a cancelled wait for a
        // synchronous standby would be answered as if the standby had the commit.
        let commit = tokio::time::timeout(self.timeout, object.batch_execute("COMMIT"));
        let commit = commit.map(|committed| match committed {
            Err(_) => Err(sqlstate::commit_timed_out()),
            Ok(result) => result.map_err(sqlstate::commit_error),
        });
        self.availability.watch(commit, sqlstate::is_answer).await?;
        self.state = ConnectionState::Clean;
        Ok(())
    }

    /// Rolls the transaction back.
    pub async fn rollback(mut self) -> StoreResult<()> {
        run!(self, conn => conn.batch_execute("ROLLBACK"))?;
        self.state = ConnectionState::Clean;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        match self.state {
            ConnectionState::Clean => drop(object),
            ConnectionState::Broken => drop(Object::take(object)),
            // Not closed: a client that begins calls and cancels them would have PostgreSQL start a process for each,
            // while those of the cancelled calls still run. The rollback is answered after all that was sent before it,
            // and the place in the pool is taken until then.
            ConnectionState::Busy | ConnectionState::InTransaction => {
                // A connection of its own state machine: if the runtime is gone, or the rollback
                // fails, it is dropped while broken and hence closed, never returned dirty.
                let mut connection = Self {
                    object: Some(object),
                    state: ConnectionState::Broken,
                    failed: false,
                    timeout: self.timeout,
                    runtime: self.runtime.clone(),
                    availability: self.availability.clone(),
                };
                self.runtime.spawn(async move {
                    let timeout = connection.timeout;
                    let (raw, _) = connection.parts();
                    if let Ok(Ok(())) = tokio::time::timeout(timeout, raw.batch_execute("ROLLBACK")).await {
                        connection.mark_clean();
                    }
                });
            }
        }
    }
}

// === impl StatementRun ===

impl StatementRun<'_> {
    /// Runs one statement within the time limit.
    pub async fn run<T>(self, statement: impl Future<Output = QueryResult<T>>) -> StoreResult<T> {
        let before = std::mem::replace(self.state, ConnectionState::Busy);
        // If this future is dropped here, or the time limit passes, the state stays Busy.
        let state = &mut *self.state;
        let answered = tokio::time::timeout(self.timeout, statement).map(|answered| match answered {
            Err(_) => Err(sqlstate::timed_out()),
            Ok(result) => {
                *state = before;
                result.map_err(sqlstate::error)
            }
        });
        let result = self.availability.watch(answered, sqlstate::is_answer).await;
        // What cannot answer now, or is no primary any more, may stay so.
        if matches!(result, Err(StoreError::Unavailable(_))) {
            *self.state = ConnectionState::Broken;
        }
        *self.failed |= result.is_err();
        result
    }
}
