use super::*;

fn fields(error: Error) -> Vec<String> {
    match error {
        Error::Invalid(violations) => violations.into_iter().map(|violation| violation.field).collect(),
        other => panic!("not about fields: {other}"),
    }
}

fn good_user() -> proto::User {
    proto::User {
        user_id: "u".into(),
        state: proto::UserState::Active.into(),
        base_role_id: "standard".into(),
        custom_role_ids: vec!["c".into()],
        team_roles: vec![proto::TeamRole { team_id: "t".into(), role_id: "member".into() }],
        ..proto::User::default()
    }
}

fn good_role() -> proto::Role {
    proto::Role { role_id: "r".into(), kind: proto::RoleKind::Custom.into(), ..proto::Role::default() }
}

#[test]
fn every_wrong_field_of_every_user_is_named() {
    let bad = proto::User { state: 0, base_role_id: String::new(), ..good_user() };
    let worse = proto::User {
        custom_role_ids: vec!["a".into(), "a".into(), "b b".into()],
        team_roles: vec![proto::TeamRole::default()],
        ..good_user()
    };
    let error = users(vec![good_user(), bad, worse]).expect_err("two are bad");
    let expected = [
        "users[1].state",
        "users[1].base_role_id",
        "users[2].custom_role_ids[1]",
        "users[2].custom_role_ids[2]",
        "users[2].team_roles[0].team_id",
        "users[2].team_roles[0].role_id",
    ];
    assert_eq!(fields(error), expected);
}

#[test]
fn an_id_twice_in_a_batch_is_refused() {
    assert_eq!(fields(users(vec![good_user(), good_user()]).expect_err("twice")), ["users[1].user_id"]);
    let pair = || proto::TeamRole { team_id: "t".into(), role_id: "r".into() };
    let twice = proto::User { team_roles: vec![pair(), pair()], ..good_user() };
    assert_eq!(fields(user(twice).expect_err("twice")), ["team_roles[1]"]);
}

#[test]
fn a_batch_has_1_to_1000_entries() {
    assert_eq!(fields(teams(vec![]).expect_err("none")), ["teams"]);
    let team = |i: usize| proto::Team { team_id: format!("t{i}"), ..proto::Team::default() };
    assert!(teams((0..1_000).map(team).collect()).is_ok());
    assert_eq!(fields(teams((0..1_001).map(team).collect()).expect_err("too many")), ["teams"]);
}

#[test]
fn a_role_of_everything_names_nothing_and_is_not_for_teams() {
    let everything = proto::Role { all_permissions: true, ..good_role() };
    assert!(role(everything.clone()).is_ok());
    let named = proto::Role { permissions: vec!["a".into()], ..everything.clone() };
    assert_eq!(fields(role(named).expect_err("both")), ["permissions"]);
    let team = proto::Role { kind: proto::RoleKind::Team.into(), ..everything };
    assert_eq!(fields(role(team).expect_err("team role")), ["all_permissions"]);
}

#[test]
fn an_unspecified_or_unknown_kind_is_refused() {
    for kind in [0, 99, -1] {
        assert_eq!(fields(role(proto::Role { kind, ..good_role() }).expect_err("no kind")), ["kind"]);
    }
}

#[test]
fn what_is_shown_can_be_sent_back() {
    let (parsed, _) = user(good_user()).expect("good");
    let shown = to_user(parsed.clone());
    assert_eq!(user(shown).expect("good").0, parsed);
    let (parsed, _) = role(proto::Role { permissions: vec!["a.b".into()], ..good_role() }).expect("good");
    assert_eq!(role(to_role(parsed.clone())).expect("good").0, parsed);
}
