use uuid::Uuid;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000);

fn bit(index: u16) -> Bit {
    Bit::catalogue(index).expect("below 256")
}

fn facts() -> TokenFacts {
    TokenFacts {
        key_id: KeyId::from_uuid(Uuid::from_u128(1)),
        account_id: AccountId::from_stored("acme"),
        account_suspended: false,
        state: ApiKeyState::Active,
        expire_time: None,
        token_end_time: None,
        account_permissions: PermissionSet::of(bit(0)),
        team_permissions: PermissionSet::of(bit(1)),
        team_ids: [TeamId::from_stored("a"), TeamId::from_stored("b")].into(),
    }
}

fn needs(permission: u16, teams: &[&str]) -> Requirement {
    Requirement {
        account_id: AccountId::from_stored("acme"),
        permission: bit(permission),
        team_ids: teams.iter().map(|t| TeamId::from_stored(t)).collect(),
    }
}

#[test]
fn without_a_requirement_only_authenticity_counts() {
    let nothing = TokenFacts {
        account_permissions: PermissionSet::EMPTY,
        team_permissions: PermissionSet::EMPTY,
        team_ids: [].into(),
        ..facts()
    };
    assert_eq!(nothing.outcome(NOW, None), Outcome::Valid);
    assert_eq!(nothing.outcome(NOW, Some(&needs(0, &["a"]))), Outcome::PermissionDenied);
}

#[test]
fn p3_an_account_level_permission_holds_for_every_team() {
    for teams in [&[][..], &["a"], &["z"]] {
        assert_eq!(facts().outcome(NOW, Some(&needs(0, teams))), Outcome::Valid);
    }
}

#[test]
fn p3_a_team_scoped_permission_holds_only_for_its_teams() {
    let outcome = |teams: &[&str]| facts().outcome(NOW, Some(&needs(1, teams)));
    assert_eq!(outcome(&["b"]), Outcome::Valid);
    assert_eq!(outcome(&["z", "a"]), Outcome::Valid);
    assert_eq!(outcome(&["z"]), Outcome::PermissionDenied);
    assert_eq!(outcome(&[]), Outcome::PermissionDenied);
}

#[test]
fn another_account_is_permission_denied() {
    let other = Requirement { account_id: AccountId::from_stored("other"), ..needs(0, &[]) };
    assert_eq!(facts().outcome(NOW, Some(&other)), Outcome::PermissionDenied);
}

#[test]
fn deadlines_end_at_their_moment_not_after_it() {
    let at = |micros| Some(Timestamp::from_micros(micros));
    let expiring = |end| TokenFacts { expire_time: end, ..facts() }.outcome(NOW, None);
    let retiring = |end| TokenFacts { token_end_time: end, ..facts() }.outcome(NOW, None);
    assert_eq!((expiring(at(1_000)), expiring(at(1_001))), (Outcome::Expired, Outcome::Valid));
    assert_eq!((retiring(at(1_000)), retiring(at(1_001))), (Outcome::Rotated, Outcome::Valid));
}

#[test]
fn the_precedence_is_that_of_the_list() {
    // Everything is wrong at once; mending one after the other walks down the list.
    let past = Some(Timestamp::from_micros(1));
    let mut key = TokenFacts {
        state: ApiKeyState::Deleted,
        token_end_time: past,
        account_suspended: true,
        expire_time: past,
        ..facts()
    };
    let requirement = needs(7, &[]);
    let mut outcomes = vec![key.outcome(NOW, Some(&requirement))];
    key.state = ApiKeyState::Disabled;
    outcomes.push(key.outcome(NOW, Some(&requirement)));
    key.token_end_time = None;
    outcomes.push(key.outcome(NOW, Some(&requirement)));
    key.account_suspended = false;
    outcomes.push(key.outcome(NOW, Some(&requirement)));
    key.state = ApiKeyState::Active;
    outcomes.push(key.outcome(NOW, Some(&requirement)));
    key.expire_time = None;
    outcomes.push(key.outcome(NOW, Some(&requirement)));
    outcomes.push(key.outcome(NOW, None));
    assert_eq!(outcomes, Outcome::ALL[2..]);
}
