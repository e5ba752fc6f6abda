//! Refusals that no test provokes at will: overload, outages, what streams end with, bugs.

use std::time::Duration;

use latchkey::{
    app::error::{AppError, NamedLimit, StoreError},
    domain::log::revision::Revision,
    grpc::status::Refusal,
};

use crate::{assert_text, table};

fn rows<const N: usize>(refusals: [(&str, Refusal); N]) -> String {
    table(refusals.map(|(name, refusal)| (name.to_owned(), refusal.into())))
}

#[test]
fn of_overload() {
    let refusals = [
        ("all work at once", AppError::Overloaded.into()),
        ("a share", AppError::ShareExceeded(NamedLimit { name: "reads_per_caller_max", max: 8 }).into()),
        ("headers", Refusal::headers_too_large(16_384)),
        ("a message", Refusal::message_too_large(65_536)),
        ("requests in memory", Refusal::no_room()),
        ("open calls without a caller", Refusal::too_many_open()),
        ("answers that are not read", Refusal::unread_answers()),
        ("a watcher that is too slow", Refusal::slow_consumer()),
    ];
    assert_text("refusals_overload", &rows(refusals));
}

#[test]
fn of_what_is_unavailable() {
    let cause = || "a driver's text".into();
    let refusals = [
        ("the store is away", StoreError::Unavailable(cause()).into()),
        ("mutations collide", StoreError::Conflict(cause()).into()),
        ("a commit's outcome is unknown", StoreError::OutcomeUnknown(cause()).into()),
        ("a statement is refused", StoreError::Bug(cause()).into()),
        ("a bug", AppError::Internal("an inner text").into()),
        ("a revision has not come", AppError::RevisionNotReached.into()),
        ("the server stops", Refusal::draining()),
        ("a deadline has passed", Refusal::deadline_exceeded()),
        ("a message does not end", Refusal::message_unfinished(Duration::from_secs(10))),
    ];
    assert_text("refusals_unavailable", &rows(refusals));
}

#[test]
fn of_what_is_not_offered_or_not_there_any_more() {
    let revision = |number| Revision { epoch: 1, number };
    let refusals = [
        ("a field", Refusal::field_not_offered("request_id")),
        ("a method", Refusal::no_such_method()),
        ("an encoding", Refusal::no_such_encoding()),
        ("an RPC of a later release", AppError::NotImplemented("ReportLeakedToken").into()),
        ("a history that was lost", AppError::RevisionLost.into()),
        ("events", AppError::EventsArchived { archived_through: revision(7), first: revision(8) }.into()),
        ("a stream's authority", Refusal::session_ended()),
        ("framing", Refusal::undecodable()),
    ];
    assert_text("refusals_not_there", &rows(refusals));
}
