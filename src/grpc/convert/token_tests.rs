use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::domain::{
    api_key::ApiKeyState,
    id::KeyId,
    log::revision::Revision,
    permissions::{
        catalogue::{Permission, PermissionSpec},
        permission::Bit,
    },
    time::Timestamp,
};

const REVISION: Revision = Revision { epoch: 1, number: 7 };

fn catalogue() -> Catalogue {
    let permission = |index, name: &str| Permission {
        spec: PermissionSpec {
            name: name.into(),
            description: String::new(),
            team_scopable: true,
            implies: vec![],
            retired: false,
        },
        bit: Bit::catalogue(index).expect("in range"),
    };
    Catalogue::new(REVISION, vec![permission(0, "a"), permission(1, "b")])
}

fn facts() -> TokenFacts {
    let catalogue = catalogue();
    TokenFacts {
        key_id: KeyId::from_uuid(Uuid::from_u128(1)),
        account_id: AccountId::from_stored("acme"),
        account_suspended: false,
        state: ApiKeyState::Active,
        expire_time: Some(Timestamp::from_micros(9_000_000)),
        token_end_time: Some(Timestamp::from_micros(5_000_000)),
        account_permissions: catalogue.closed(["a"]),
        team_permissions: catalogue.closed(["b"]),
        team_ids: Arc::from([TeamId::from_stored("t")]),
    }
}

fn answer(outcome: Outcome, facts: Option<&TokenFacts>) -> proto::TokenVerification {
    let catalogue = catalogue();
    to_answer(outcome, facts.map(|facts| (facts, &catalogue)), to_revision(REVISION))
}

#[test]
fn permissions_and_teams_are_given_only_when_valid() {
    for outcome in Outcome::ALL {
        let answer = answer(outcome, Some(&facts()));
        let valid = outcome == Outcome::Valid;
        assert_eq!(answer.account_id, "acme", "the account is given whenever it is known");
        assert_eq!(answer.account_permissions.is_empty(), !valid, "{outcome:?}");
        assert_eq!(answer.team_scope.is_some(), valid, "{outcome:?}");
        assert_eq!(answer.expire_time.is_some(), valid, "{outcome:?}");
        assert_eq!(answer.revision, Some(to_revision(REVISION)));
    }
}

#[test]
fn a_valid_answer_ends_with_the_earlier_of_expiry_and_grace() {
    let expire_time = answer(Outcome::Valid, Some(&facts())).expire_time;
    assert_eq!(expire_time.map(|time| time.seconds), Some(5));
}

#[test]
fn an_unknown_token_has_no_key() {
    let answer = answer(Outcome::Unknown, None);
    assert_eq!((answer.key_id.as_str(), answer.account_id.as_str()), ("", ""));
}

#[test]
fn a_team_scope_without_permissions_is_absent() {
    let facts = TokenFacts { team_permissions: PermissionSet::EMPTY, ..facts() };
    assert_eq!(answer(Outcome::Valid, Some(&facts)).team_scope, None);
}

#[test]
fn account_and_permission_of_a_requirement_are_mandatory() {
    let empty = proto::Requirement { team_ids: vec!["t".into(), "t t".into()], ..proto::Requirement::default() };
    let error = requirement(empty).expect_err("empty").to_string();
    for field in ["account_id: is required", "permission: is required", "team_ids[1]: must"] {
        assert!(error.contains(field), "{error}");
    }
    let many = proto::Requirement {
        account_id: "acme".into(),
        permission: "a".into(),
        team_ids: vec!["t".into(); TEAMS_MAX + 1],
    };
    assert!(requirement(many).is_err());
}

#[test]
fn outcomes_keep_their_order_of_precedence() {
    let numbers: Vec<i32> = Outcome::ALL.into_iter().map(|outcome| to_outcome(outcome).into()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}
