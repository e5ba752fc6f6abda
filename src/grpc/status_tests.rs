use super::*;
use crate::domain::{ObjectKind, log::revision::Revision};

fn boxed() -> Box<dyn StdError + Send + Sync> {
    "driver text: password=hunter2".into()
}

fn rule(error: domain::Error) -> AppError {
    AppError::Rule(error)
}

/// Every error of the application, with the row of the rules' error table that it belongs to.
fn table() -> Vec<(AppError, Code, &'static str)> {
    let team = Some("t".to_owned());
    vec![
        (rule(domain::Error::field("name", "is bad")), Code::InvalidArgument, "INVALID_FIELD"),
        (AppError::BadCredentials(Outcome::Expired), Code::Unauthenticated, "BAD_CREDENTIALS"),
        (AppError::BadCredentials(Outcome::AccountSuspended), Code::Unauthenticated, "ACCOUNT_SUSPENDED"),
        (AppError::BadUser, Code::Unauthenticated, "BAD_USER"),
        (AppError::AccountSuspended, Code::Unauthenticated, "ACCOUNT_SUSPENDED"),
        (rule(domain::Error::missing("a.b")), Code::PermissionDenied, "PERMISSION_MISSING"),
        (
            rule(domain::Error::PermissionMissing { permission: "a.b".into(), team }),
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        ),
        (rule(domain::Error::NotAllowed { rule: "M5", message: "no" }), Code::PermissionDenied, "NOT_ALLOWED"),
        (rule(domain::Error::NotFound(ObjectKind::ApiKey)), Code::NotFound, "NOT_FOUND"),
        (rule(domain::Error::StaleEtag), Code::Aborted, "STALE_ETAG"),
        (rule(domain::Error::WrongState("deleted".into())), Code::FailedPrecondition, "WRONG_STATE"),
        (rule(domain::Error::InUse("used".into())), Code::FailedPrecondition, "IN_USE"),
        (rule(domain::Error::IdNotReusable), Code::FailedPrecondition, "ID_NOT_REUSABLE"),
        (
            rule(domain::Error::QuotaExceeded { quota: "api_keys_per_account", limit: 5_000 }),
            Code::ResourceExhausted,
            "QUOTA_EXCEEDED",
        ),
        (AppError::Overloaded, Code::ResourceExhausted, "OVERLOADED"),
        (AppError::ShareExceeded(NamedLimit { name: "a_bound", max: 3 }), Code::ResourceExhausted, "SHARE_EXCEEDED"),
        (StoreError::Unavailable(boxed()).into(), Code::Unavailable, "STORE_UNAVAILABLE"),
        (StoreError::Conflict(boxed()).into(), Code::Unavailable, "STORE_UNAVAILABLE"),
        (StoreError::NotifyFailed(boxed()).into(), Code::Unavailable, "STORE_UNAVAILABLE"),
        (StoreError::OutcomeUnknown(boxed()).into(), Code::Unavailable, "OUTCOME_UNKNOWN"),
        (AppError::RevisionNotReached, Code::Unavailable, "REVISION_NOT_REACHED"),
        (AppError::RevisionLost, Code::FailedPrecondition, "REVISION_LOST"),
        (
            AppError::EventsArchived {
                archived_through: Revision { epoch: 1, number: 4 },
                first: Revision { epoch: 1, number: 5 },
            },
            Code::FailedPrecondition,
            "EVENTS_ARCHIVED",
        ),
        (AppError::NotImplemented("WatchEvents"), Code::Unimplemented, "NOT_IMPLEMENTED"),
        (AppError::Internal("secret detail"), Code::Internal, "INTERNAL"),
        (StoreError::Bug(boxed()).into(), Code::Internal, "INTERNAL"),
    ]
}

fn metadata(status: &Status) -> HashMap<String, String> {
    status.get_details_error_info().expect("every error carries ErrorInfo").metadata
}

#[test]
fn every_error_has_its_code_its_reason_and_our_domain() {
    for (error, code, reason) in table() {
        let what = format!("{error:?}");
        let status = Status::from(error);
        assert_eq!(status.code(), code, "{what}");
        let info = status.get_details_error_info().expect("every error carries ErrorInfo");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "latchkey"), "{what}");
        assert!(!status.message().is_empty(), "{what}");
    }
}

#[test]
fn bad_fields_are_named_in_bad_request_and_only_they_are() {
    for (error, code, _) in table() {
        let status = Status::from(error);
        assert_eq!(status.get_details_bad_request().is_some(), code == Code::InvalidArgument);
    }
    let status = Status::from(domain::Error::field("api_key.name", "is required"));
    let bad_request = status.get_details_bad_request().expect("BadRequest");
    assert_eq!(bad_request.field_violations[0].field, "api_key.name");
    assert_eq!(bad_request.field_violations[0].description, "is required");
}

#[test]
fn what_can_be_retried_says_when() {
    for (error, code, reason) in table() {
        let retry = Status::from(error).get_details_retry_info();
        let delay = retry.as_ref().and_then(|info| info.retry_delay);
        let retryable = code == Code::Unavailable || matches!(reason, "OVERLOADED" | "SHARE_EXCEEDED");
        assert_eq!(delay, retryable.then_some(RETRY_DELAY), "{reason}");
    }
}

#[test]
fn internal_texts_stay_inside() {
    for (error, ..) in table() {
        let status = Status::from(error);
        let bytes = String::from_utf8_lossy(status.details()).into_owned();
        for secret in ["hunter2", "driver", "secret detail"] {
            assert!(!status.message().contains(secret) && !bytes.contains(secret), "{status:?}");
        }
    }
    assert_eq!(Status::from(AppError::Internal("x")).message(), INTERNAL);
}

#[test]
fn the_missing_permission_and_team_are_named() {
    let team = Some("t".to_owned());
    let status = Status::from(domain::Error::PermissionMissing { permission: "a.b".into(), team });
    assert_eq!(metadata(&status)["permission"], "a.b");
    assert_eq!(metadata(&status)["team_id"], "t");
    let status = Status::from(domain::Error::missing("a.b"));
    assert!(!metadata(&status).contains_key("team_id"));
}

#[test]
fn the_rule_the_quota_and_the_outcome_are_named() {
    let status = Status::from(domain::Error::NotAllowed { rule: "M5", message: "no" });
    assert_eq!(metadata(&status)["rule"], "M5");
    let status = Status::from(domain::Error::QuotaExceeded { quota: "api_keys_per_team", limit: 7 });
    assert_eq!((metadata(&status)["quota"].as_str(), metadata(&status)["limit"].as_str()), ("api_keys_per_team", "7"));
    let status = Status::from(AppError::BadCredentials(Outcome::Rotated));
    assert_eq!(metadata(&status)["outcome"], "ROTATED");
}

#[test]
fn a_field_that_is_not_offered_is_unimplemented_by_name() {
    let status = Status::from(Refusal::field_not_offered("request_id"));
    assert_eq!(status.code(), Code::Unimplemented);
    let bad_request = status.get_details_bad_request().expect("BadRequest");
    assert_eq!(bad_request.field_violations[0].field, "request_id");
}

#[test]
fn an_error_fits_into_trailers_however_much_is_wrong() {
    let violation =
        |i| FieldViolation { field: format!("users[{i}].{}", "x".repeat(500)), description: "é\"".repeat(5_000) };
    let status = Status::from(domain::Error::Invalid((0..1_000).map(violation).collect()));
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).expect("valid headers");
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < 8 * 1_024, "{bytes} bytes of trailers");
    assert!(status.message().starts_with("1000 fields are wrong"), "{}", status.message());
    let status = Status::from(domain::Error::WrongState("x".repeat(100_000)));
    assert!(status.message().len() <= MESSAGE_BYTES_MAX);
}

#[test]
fn one_message_of_a_stream_gets_the_same_answer() {
    let error =
        Refusal::from(domain::Error::field("checks[3].requirement.permission", "is unknown")).into_stream_error();
    assert_eq!(error.code, i32::from(Code::InvalidArgument));
    assert_eq!(error.reason, i32::from(ErrorReason::InvalidField));
    assert_eq!(error.field, "checks[3].requirement.permission");
}

#[test]
fn the_log_has_the_whole_chain() {
    assert_eq!(
        ErrorChain(&StoreError::Bug(boxed())).to_string(),
        "the store refused a statement: driver text: password=hunter2"
    );
}

#[test]
fn what_the_transport_refuses_has_a_reason_too() {
    let too_large = Refusal::of_transport(&Status::out_of_range("found 5 bytes"), 4).map(Status::from).expect("ours");
    assert_eq!(too_large.code(), Code::ResourceExhausted);
    assert_eq!(metadata(&too_large)["limit"], "4");
    let garbled = Refusal::of_transport(&Status::internal("varint"), 4).map(Status::from).expect("ours");
    assert_eq!(garbled.code(), Code::InvalidArgument);
    assert_eq!(Refusal::of_transport(&Status::cancelled("gone"), 4), None);
}
