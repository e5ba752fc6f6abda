//! Gives the database's errors a meaning: the one place where a driver's error becomes a [`StoreError`].
//!
//! Diesel keeps the SQLSTATE of a few classes as a kind and drops the rest, leaving the message. So
//! the classes without a kind are distinguished by the server's untranslated message; `connect` asks every
//! session for untranslated ones. What is not recognised is a [`StoreError::Bug`] — or, during COMMIT,
//! [`StoreError::OutcomeUnknown`]: never a wrong certainty.

use diesel::{
    ConnectionError,
    result::{DatabaseErrorKind as Kind, Error as DieselError},
};
use diesel_async::pooled_connection::deadpool::PoolError;

use crate::app::error::StoreError;

/// Classifies an error, before it is known whether it came from COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorClass {
    /// 40P01, 40001, 23505, 55P03: another transaction was faster.
    Conflict,
    /// 08xxx, 53xxx, 57xxx, 25006, a closed connection.
    Unavailable,
    /// 54000 from NOTIFY.
    NotifyFailed,
    /// The statement was wrong, or a constraint refused an impossible row.
    Bug,
}

/// The untranslated beginnings of the messages of classes that Diesel has no kind for.
const MESSAGES: &[(&str, ErrorClass)] = &[
    // 40P01
    ("deadlock detected", ErrorClass::Conflict),
    // 55P03
    ("canceling statement due to lock timeout", ErrorClass::Conflict),
    ("could not obtain lock on", ErrorClass::Conflict),
    // 54000
    ("too many notifications in the NOTIFY queue", ErrorClass::NotifyFailed),
    // 57014
    ("canceling statement due to", ErrorClass::Unavailable),
    // 57P01, 57P02, 57P05, 25P03: the backend is being ended.
    ("terminating connection", ErrorClass::Unavailable),
    ("terminating background worker", ErrorClass::Unavailable),
    // 57P03
    ("the database system is", ErrorClass::Unavailable),
    // 53300
    ("sorry, too many clients already", ErrorClass::Unavailable),
    ("remaining connection slots are reserved", ErrorClass::Unavailable),
    ("too many connections for", ErrorClass::Unavailable),
    // 53200, 53100
    ("out of memory", ErrorClass::Unavailable),
    ("out of shared memory", ErrorClass::Unavailable),
    ("could not extend file", ErrorClass::Unavailable),
    ("could not write", ErrorClass::Unavailable),
    // 08xxx
    ("connection to client lost", ErrorClass::Unavailable),
];

/// The messages of a server that is shutting down or starting.
const GOING: [&str; 2] = ["the database system is", "terminating connection"];

/// A time limit of ours passed.
#[derive(Debug, thiserror::Error)]
#[error("the database did not answer within its time limit")]
struct TimedOut;

/// COMMIT after a statement had failed: PostgreSQL would answer ROLLBACK, as if that were success.
#[derive(Debug, thiserror::Error)]
#[error("a transaction whose statement had failed cannot be committed")]
struct CommitAfterFailure;

/// Maps the error of a statement by the meaning of its SQLSTATE.
pub fn error(source: DieselError) -> StoreError {
    match classify(&source) {
        ErrorClass::Conflict => StoreError::Conflict(source.into()),
        ErrorClass::Unavailable => StoreError::Unavailable(source.into()),
        ErrorClass::NotifyFailed => StoreError::NotifyFailed(source.into()),
        ErrorClass::Bug => StoreError::Bug(source.into()),
    }
}

/// Maps the error of COMMIT. Only an error that PostgreSQL raises before it commits says that nothing was
/// changed; a connection that ended may have ended after it.
pub fn commit_error(source: DieselError) -> StoreError {
    match classify(&source) {
        ErrorClass::Conflict => StoreError::Conflict(source.into()),
        ErrorClass::NotifyFailed => StoreError::NotifyFailed(source.into()),
        ErrorClass::Bug if refused_by_constraint(&source) => StoreError::Bug(source.into()),
        ErrorClass::Bug | ErrorClass::Unavailable => StoreError::OutcomeUnknown(source.into()),
    }
}

/// Reports whether the server, or this process, raised the error: a lock timeout, a statement that the server
/// cancelled, a constraint. Any other failure may be an outage.
pub fn is_answer(error: &StoreError) -> bool {
    let source = match error {
        StoreError::Unavailable(source) | StoreError::OutcomeUnknown(source) => source,
        StoreError::Conflict(_) | StoreError::NotifyFailed(_) | StoreError::Bug(_) => return true,
    };
    source.downcast_ref().is_some_and(is_word_of_server)
}

/// Reports whether the server itself refused a connection.
pub fn connecting_is_answer(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::CouldntSetupConfiguration(error) => is_word_of_server(error),
        _ => false,
    }
}

/// Reports whether a driver's error was sent by a server that is neither starting nor shutting down.
pub fn is_word_of_server(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(Kind::UnableToSendCommand | Kind::ClosedConnection, _) => false,
        DieselError::DatabaseError(_, information) => {
            !GOING.iter().any(|beginning| information.message().starts_with(beginning))
        }
        _ => false,
    }
}

/// Maps the error of taking a connection from a pool.
pub fn pool_error(source: PoolError) -> StoreError {
    StoreError::Unavailable(source.into())
}

/// Returns the error of a statement that took too long.
pub fn timed_out() -> StoreError {
    StoreError::Unavailable(TimedOut.into())
}

/// Returns the error of a COMMIT that took too long.
pub fn commit_timed_out() -> StoreError {
    StoreError::OutcomeUnknown(TimedOut.into())
}

/// Returns the error of a COMMIT that would have been a ROLLBACK.
pub fn commit_after_failure() -> StoreError {
    StoreError::Bug(CommitAfterFailure.into())
}

fn classify(error: &DieselError) -> ErrorClass {
    let DieselError::DatabaseError(kind, information) = error else {
        return match error {
            DieselError::BrokenTransactionManager => ErrorClass::Unavailable,
            _ => ErrorClass::Bug,
        };
    };
    match kind {
        Kind::UniqueViolation | Kind::SerializationFailure => ErrorClass::Conflict,
        Kind::UnableToSendCommand | Kind::ClosedConnection | Kind::ReadOnlyTransaction => ErrorClass::Unavailable,
        Kind::ForeignKeyViolation | Kind::NotNullViolation | Kind::CheckViolation => ErrorClass::Bug,
        _ => {
            let message = information.message();
            let known = MESSAGES.iter().find(|(beginning, _)| message.starts_with(beginning));
            known.map_or(ErrorClass::Bug, |(_, class)| *class)
        }
    }
}

fn refused_by_constraint(error: &DieselError) -> bool {
    use Kind::{CheckViolation, ForeignKeyViolation, NotNullViolation};
    matches!(error, DieselError::DatabaseError(CheckViolation | ForeignKeyViolation | NotNullViolation, _))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(kind: Kind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    fn unknown(message: &str) -> DieselError {
        database(Kind::Unknown, message)
    }

    #[test]
    fn a_lost_race_is_a_conflict() {
        for source in [
            database(Kind::UniqueViolation, "duplicate key"),
            database(Kind::SerializationFailure, "could not serialize"),
            unknown("deadlock detected"),
            unknown("canceling statement due to lock timeout"),
        ] {
            assert!(matches!(error(source), StoreError::Conflict(_)));
        }
    }

    #[test]
    fn not_being_able_to_ask_is_unavailable_and_after_commit_unknown() {
        let gone = || {
            [
                database(Kind::UnableToSendCommand, "connection closed"),
                database(Kind::ReadOnlyTransaction, "cannot execute INSERT in a read-only transaction"),
                unknown("terminating connection due to administrator command"),
                unknown("canceling statement due to statement timeout"),
                unknown("the database system is shutting down"),
            ]
        };
        for source in gone() {
            assert!(matches!(error(source), StoreError::Unavailable(_)));
        }
        for source in gone() {
            assert!(matches!(commit_error(source), StoreError::OutcomeUnknown(_)));
        }
    }

    #[test]
    fn an_unrecognised_error_of_commit_is_never_taken_for_a_rollback() {
        assert!(matches!(error(unknown("¿qué?")), StoreError::Bug(_)));
        assert!(matches!(commit_error(unknown("¿qué?")), StoreError::OutcomeUnknown(_)));
        let refused = database(Kind::CheckViolation, "K2");
        assert!(matches!(commit_error(refused), StoreError::Bug(_)));
    }

    #[test]
    fn display_never_prints_the_driver_s_text() {
        let error = error(unknown("row (secret) is wrong"));
        assert!(!error.to_string().contains("secret"));
        assert!(std::error::Error::source(&error).expect("carried").to_string().contains("secret"));
    }
}
