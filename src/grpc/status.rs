//! Builds every [`Status`]: code, `ErrorInfo`, `BadRequest` and `RetryInfo` of the rules' error table.
//!
//! An error has two halves. The public one is a [`Refusal`]; the internal one (drivers' texts, the chain of sources) is
//! logged here, once, and goes nowhere else. Everything a client reads is bounded, because it travels in HTTP/2
//! trailers, and many clients accept no more than 8 KiB of those.

use std::{collections::HashMap, error::Error as StdError, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{convert::token::to_outcome, outage::note_outage};
use crate::{
    app::error::{AppError, NamedLimit, StoreError},
    domain::{self, FieldViolation, verification::Outcome},
    error_chain::ErrorChain,
    proto::{self, ErrorReason},
};

const DOMAIN: &str = "latchkey";
const INTERNAL: &str = "internal error: the server's log has the details";

/// The delay that RetryInfo asks for.
const RETRY_DELAY: Duration = Duration::from_secs(1);

const MESSAGE_BYTES_MAX: usize = 512;
const VIOLATIONS_MAX: usize = 8;
const VIOLATION_FIELD_BYTES_MAX: usize = 128;
const VIOLATION_TEXT_BYTES_MAX: usize = 256;

/// The public half of an error: what its caller reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    violations: Vec<FieldViolation>,
    retry_delay: Option<Duration>,
}

impl Refusal {
    fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        let message = clipped(message.into(), MESSAGE_BYTES_MAX);
        Self { code, reason, message, metadata: vec![], violations: vec![], retry_delay: None }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.metadata.push((name, value.to_string()));
        self
    }

    fn retryable(mut self) -> Self {
        self.retry_delay = Some(RETRY_DELAY);
        self
    }

    fn invalid(violations: Vec<FieldViolation>) -> Self {
        let all = violations.len();
        let violations: Vec<_> = violations.into_iter().take(VIOLATIONS_MAX).map(clipped_violation).collect();
        let mut message = domain::Error::Invalid(violations.clone()).to_string();
        if all > VIOLATIONS_MAX {
            message = format!("{all} fields are wrong, the first {VIOLATIONS_MAX} are named; {message}");
        }
        Self { violations, ..Self::new(Code::InvalidArgument, ErrorReason::InvalidField, message) }
    }

    /// Says that the call's metadata has no `authorization: Bearer …`.
    #[must_use]
    pub fn no_credentials() -> Self {
        let message = "credentials are required: send the metadata entry `authorization: Bearer <token>`";
        Self::new(Code::Unauthenticated, ErrorReason::BadCredentials, message)
    }

    /// Says that the authority that a stream was opened with has ended.
    #[must_use]
    pub fn session_ended() -> Self {
        let message = "the caller's authority ended or changed: open a new stream";
        Self::new(Code::Unauthenticated, ErrorReason::BadCredentials, message)
    }

    /// Says that a client left messages of its watch waiting for too long.
    #[must_use]
    pub fn slow_consumer() -> Self {
        let message = "the client reads too slowly: resume after the last event received";
        Self::new(Code::ResourceExhausted, ErrorReason::Overloaded, message).retryable()
    }

    /// Says that unread responses use up the budget for large ones.
    #[must_use]
    pub fn unread_answers() -> Self {
        let message = "too many unread response bytes: read the open responses before sending more requests";
        Self::new(Code::ResourceExhausted, ErrorReason::Overloaded, message).retryable()
    }

    /// Says that the server is draining.
    #[must_use]
    pub fn draining() -> Self {
        let message = "the server is draining: open the stream again, and resume where this one ended";
        Self::new(Code::Unavailable, ErrorReason::Draining, message).retryable()
    }

    /// Says that a metadata entry is malformed, repeated or not allowed on this RPC (A6).
    #[must_use]
    pub fn metadata(entry: &'static str, description: &'static str) -> Self {
        let message = format!("metadata entry `{entry}` {description}");
        Self::new(Code::InvalidArgument, ErrorReason::InvalidMetadata, message).with("entry", entry)
    }

    /// Says that a field is not offered by this release.
    #[must_use]
    pub fn field_not_offered(field: &'static str) -> Self {
        let violation = FieldViolation {
            field: field.to_owned(),
            description: "is not offered by this release: leave it empty".to_owned(),
        };
        let message = format!("{field}: {}", violation.description);
        Self { violations: vec![violation], ..Self::new(Code::Unimplemented, ErrorReason::NotImplemented, message) }
    }

    /// Says that there is no such method.
    #[must_use]
    pub fn no_such_method() -> Self {
        Self::new(Code::Unimplemented, ErrorReason::NotImplemented, "there is no such service or method")
    }

    /// Says that the request is compressed.
    #[must_use]
    pub fn no_such_encoding() -> Self {
        let message = "the metadata entry `grpc-encoding` must be absent or `identity`: this server accepts no compressed messages";
        Self::new(Code::Unimplemented, ErrorReason::NotImplemented, message)
    }

    /// Says that the headers of the call are too large.
    #[must_use]
    pub fn headers_too_large(bytes_max: usize) -> Self {
        let message = format!("the headers of the call are larger than {bytes_max} bytes in all: send less metadata");
        let refusal = Self::new(Code::ResourceExhausted, ErrorReason::QuotaExceeded, message);
        refusal.with("quota", "header_bytes").with("limit", bytes_max)
    }

    /// Says that a message is larger than its caller may send.
    #[must_use]
    pub fn message_too_large(bytes_max: usize) -> Self {
        let message = format!("the message is larger than {bytes_max} bytes: send several smaller ones");
        let refusal = Self::new(Code::ResourceExhausted, ErrorReason::QuotaExceeded, message);
        refusal.with("quota", "message_bytes").with("limit", bytes_max)
    }

    /// Says that a message was not complete in time.
    #[must_use]
    pub fn message_unfinished(patience: Duration) -> Self {
        let message =
            format!("the message was not complete within {} ms: send it without pauses", patience.as_millis());
        Self::new(Code::DeadlineExceeded, ErrorReason::MessageUnfinished, message)
    }

    /// Says that a unary call does not contain exactly one message, or its framing is wrong.
    #[must_use]
    pub fn bad_framing(message: &'static str) -> Self {
        Self::new(Code::InvalidArgument, ErrorReason::InvalidField, message)
    }

    /// Says that a message is not of its method's type.
    #[must_use]
    pub fn undecodable() -> Self {
        Self::bad_framing("the message cannot be decoded: it is not a message of this method's type")
    }

    /// Says that the caller's deadline has passed.
    #[must_use]
    pub fn deadline_exceeded() -> Self {
        let message = "the deadline in `grpc-timeout` has passed: a change may or may not have been made";
        Self::new(Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message)
    }

    /// Requests take all the memory that they may, in total or of one caller.
    #[must_use]
    pub fn no_room() -> Self {
        let message = "too much memory is used by requests: send fewer large messages at once, or retry later";
        Self::new(Code::ResourceExhausted, ErrorReason::Overloaded, message).retryable()
    }

    /// Says that too many unauthenticated calls of a method are open.
    #[must_use]
    pub fn too_many_open() -> Self {
        let message = "too many open calls of this method; retry later";
        Self::new(Code::ResourceExhausted, ErrorReason::Overloaded, message).retryable()
    }

    /// Explains a refusal of the transport; `None` if the status is not one of those and should stay as it is.
    #[must_use]
    pub fn of_transport(status: &Status, message_bytes_max: usize) -> Option<Self> {
        match status.code() {
            Code::OutOfRange => Some(Self::message_too_large(message_bytes_max)),
            // The decoder reports an undecodable message as an internal error; it is the caller's.
            Code::Internal => Some(Self::undecodable()),
            Code::Unimplemented if status.message().is_empty() => Some(Self::no_such_method()),
            Code::Unimplemented => Some(Self::new(Code::Unimplemented, ErrorReason::NotImplemented, status.message())),
            Code::NotFound => Some(Self::new(Code::NotFound, ErrorReason::NotFound, status.message())),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => None,
        }
    }

    /// Reports whether the caller's authority has ended, as opposed to a refusal of this request.
    #[must_use]
    pub fn ends_authority(&self) -> bool {
        matches!(self.code, Code::Unauthenticated | Code::PermissionDenied)
    }

    /// Converts it to the answer to one message of a stream that goes on.
    #[must_use]
    pub fn into_stream_error(self) -> proto::StreamError {
        proto::StreamError {
            code: self.code.into(),
            message: self.message,
            reason: self.reason.into(),
            field: self.violations.into_iter().next().map(|violation| violation.field).unwrap_or_default(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let metadata: HashMap<_, _> =
            refusal.metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(reason_name(refusal.reason), DOMAIN, metadata);
        if !refusal.violations.is_empty() {
            let violations =
                refusal.violations.into_iter().map(|v| tonic_types::FieldViolation::new(v.field, v.description));
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        if let Some(delay) = refusal.retry_delay {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(refusal.code, refusal.message, details)
    }
}

impl From<domain::Error> for Refusal {
    fn from(error: domain::Error) -> Self {
        use domain::Error as E;
        let message = error.to_string();
        match error {
            E::Invalid(violations) => Self::invalid(violations),
            E::PermissionMissing { permission, team } => {
                let refusal = Self::new(Code::PermissionDenied, ErrorReason::PermissionMissing, message);
                let refusal = refusal.with("permission", permission);
                match team {
                    Some(team) => refusal.with("team_id", team),
                    None => refusal,
                }
            }
            E::NotAllowed { rule, message: _ } => {
                Self::new(Code::PermissionDenied, ErrorReason::NotAllowed, message).with("rule", rule)
            }
            E::NotFound(_) => Self::new(Code::NotFound, ErrorReason::NotFound, message),
            E::StaleEtag => Self::new(Code::Aborted, ErrorReason::StaleEtag, message),
            E::WrongState(_) => Self::new(Code::FailedPrecondition, ErrorReason::WrongState, message),
            E::InUse(_) => Self::new(Code::FailedPrecondition, ErrorReason::InUse, message),
            E::StillDeleting(_) => Self::new(Code::FailedPrecondition, ErrorReason::StillDeleting, message).retryable(),
            E::IdNotReusable => Self::new(Code::FailedPrecondition, ErrorReason::IdNotReusable, message),
            E::QuotaExceeded { quota, limit } => {
                let refusal = Self::new(Code::ResourceExhausted, ErrorReason::QuotaExceeded, message);
                refusal.with("quota", quota).with("limit", limit)
            }
        }
    }
}

impl From<AppError> for Refusal {
    fn from(error: AppError) -> Self {
        let message = error.to_string();
        match error {
            AppError::Rule(error) => error.into(),
            AppError::BadCredentials(Outcome::AccountSuspended) => AppError::AccountSuspended.into(),
            AppError::BadCredentials(outcome) => {
                let name = to_outcome(outcome).as_str_name().trim_start_matches("VERIFICATION_OUTCOME_");
                let message = format!("{message}: {name}");
                Self::new(Code::Unauthenticated, ErrorReason::BadCredentials, message).with("outcome", name)
            }
            AppError::BadUser => Self::new(Code::Unauthenticated, ErrorReason::BadUser, message),
            AppError::AccountSuspended => Self::new(Code::Unauthenticated, ErrorReason::AccountSuspended, message),
            AppError::Store(error) => error.into(),
            AppError::RevisionNotReached => {
                Self::new(Code::Unavailable, ErrorReason::RevisionNotReached, message).retryable()
            }
            AppError::RevisionLost => Self::new(Code::FailedPrecondition, ErrorReason::RevisionLost, message),
            AppError::EventsArchived { archived_through, first } => {
                let refusal = Self::new(Code::FailedPrecondition, ErrorReason::EventsArchived, message);
                refusal.with("archived_through", archived_through).with("first_revision", first)
            }
            AppError::Overloaded => {
                let message = "server overloaded; retry later";
                Self::new(Code::ResourceExhausted, ErrorReason::Overloaded, message).retryable()
            }
            AppError::ShareExceeded(NamedLimit { name, max }) => {
                let refusal = Self::new(Code::ResourceExhausted, ErrorReason::ShareExceeded, message).retryable();
                refusal.with("bound", name).with("limit", max)
            }
            AppError::NotImplemented(_) => Self::new(Code::Unimplemented, ErrorReason::NotImplemented, message),
            AppError::Internal(_) => {
                tracing::error!(error = message, "internal error");
                Self::new(Code::Internal, ErrorReason::Internal, INTERNAL)
            }
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let error_chain = ErrorChain(&error).to_string();
        match error {
            StoreError::Unavailable(_) => {
                note_outage(&error_chain);
                store_unavailable("the database cannot be reached; nothing was changed: retry later")
            }
            // The use-cases retry these; here they gave up.
            StoreError::Conflict(_) | StoreError::NotifyFailed(_) => {
                tracing::warn!(error = error_chain, "gave up on a mutation after several tries");
                store_unavailable("the database is too busy; nothing was changed: retry later")
            }
            StoreError::OutcomeUnknown(_) => {
                tracing::warn!(error = error_chain, "the outcome of a commit is unknown");
                let message = "the connection to the database was lost: the change may or may not have been made; read before repeating it";
                Self::new(Code::Unavailable, ErrorReason::OutcomeUnknown, message).retryable()
            }
            StoreError::Bug(_) => {
                tracing::error!(error = error_chain, "the store refused a statement");
                Self::new(Code::Internal, ErrorReason::Internal, INTERNAL)
            }
        }
    }
}

fn store_unavailable(message: &'static str) -> Refusal {
    Refusal::new(Code::Unavailable, ErrorReason::StoreUnavailable, message).retryable()
}

impl From<AppError> for Status {
    fn from(error: AppError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<domain::Error> for Status {
    fn from(error: domain::Error) -> Self {
        Refusal::from(error).into()
    }
}

/// Builds the status of a call whose client reset it, or disconnected, before its message was complete. No client reads
/// it; it is counted.
pub fn client_left(error: Box<dyn StdError + Send + Sync>) -> Status {
    tracing::debug!(error = ErrorChain(&*error).to_string(), "a client left before its message was complete");
    Status::cancelled("the client ended the call before its message was complete")
}

fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

fn clipped_violation(violation: FieldViolation) -> FieldViolation {
    FieldViolation {
        field: clipped(violation.field, VIOLATION_FIELD_BYTES_MAX),
        description: clipped(violation.description, VIOLATION_TEXT_BYTES_MAX),
    }
}

fn clipped(mut text: String, bytes_max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes_max {
        let end = (0..=bytes_max - ELLIPSIS.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
