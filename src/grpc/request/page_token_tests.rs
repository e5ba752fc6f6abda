use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{directory::Team, log::revision::Revision};

fn arguments() -> impl Strategy<Value = proto::ListApiKeysRequest> {
    let text = || prop_oneof![Just(String::new()), "[a-z]{1,3}"];
    let states = prop::collection::vec(1..=3_i32, 0..3);
    (text(), any::<bool>(), text(), text(), states).prop_map(
        |(account_id, show_deleted, team_id, permission, states)| proto::ListApiKeysRequest {
            account_id,
            show_deleted,
            team_id,
            permission,
            states,
            ..proto::ListApiKeysRequest::default()
        },
    )
}

fn asked(request: &proto::ListApiKeysRequest, page_token: &str, page_size: i32) -> Result<Page<KeyId>, Error> {
    let mut request = proto::ListApiKeysRequest { page_token: page_token.into(), page_size, ..request.clone() };
    page(&mut request).map(|(page, _)| page)
}

fn token(request: &proto::ListApiKeysRequest, key: u128) -> String {
    Binding::of(request).close(&KeyId::from_uuid(Uuid::from_u128(key)))
}

proptest! {
    #[test]
    fn a_token_reads_back_with_any_page_size(request in arguments(), key in any::<u128>(), size in 0..=i32::MAX) {
        let page = asked(&request, &token(&request, key), size);
        prop_assert_eq!(page.map(|page| page.after), Ok(Some(KeyId::from_uuid(Uuid::from_u128(key)))));
    }

    #[test]
    fn any_changed_argument_is_refused(one in arguments(), other in arguments(), key in any::<u128>()) {
        prop_assume!(one != other);
        let error = asked(&other, &token(&one, key), 0).expect_err("another list").to_string();
        prop_assert!(error.contains("page_token"), "{}", error);
    }

    #[test]
    fn a_changed_binding_is_refused(
        request in arguments(),
        key in any::<u128>(),
        at in 0..21_usize,
        c in "[A-Za-z0-9_-]",
    ) {
        let good = token(&request, key);
        let bad = format!("{}{c}{}", &good[..at], &good[at + 1..]);
        prop_assume!(bad != good);
        // The first 21 characters hold nothing but the binding.
        prop_assert!(asked(&request, &bad, 0).is_err());
    }
}

#[test]
fn a_malformed_token_names_the_field() {
    let request = proto::ListApiKeysRequest::default();
    let good = token(&request, 5);
    let cut = &good[..good.len() - 4];
    let wrong_cursor = Binding::of(&request).close(&Revision { epoch: 1, number: 7 });
    for bad in ["x", "====", "é", cut, &format!("{good}="), &"A".repeat(10_000), &wrong_cursor] {
        let error = asked(&request, bad, 0).expect_err(bad).to_string();
        assert!(error.contains("page_token"), "{error}");
    }
}

#[test]
fn a_token_of_one_method_is_none_of_another() {
    let teams = proto::ListTeamsRequest { account_id: "a".into(), ..proto::ListTeamsRequest::default() };
    let page_token = Binding::of(&teams).close(&TeamId::from_stored("t"));
    let mut roles =
        proto::ListRolesRequest { account_id: "a".into(), page_token, ..proto::ListRolesRequest::default() };
    assert!(page::<_, RoleId>(&mut roles).is_err());
}

#[test]
fn page_sizes_have_a_default_and_a_maximum() {
    let request = proto::ListApiKeysRequest::default();
    let limit = |size| asked(&request, "", size).map(|page| page.limit);
    assert_eq!(limit(0), Ok(50));
    assert_eq!(limit(1), Ok(1));
    assert_eq!(limit(1_000), Ok(1_000));
    assert_eq!(limit(1_001), Ok(1_000));
    assert_eq!(limit(i32::MAX), Ok(1_000));
    let error = limit(-1).expect_err("negative").to_string();
    assert!(error.contains("page_size"), "{error}");
}

fn team(i: usize, display_name: &str) -> Team {
    let revision = Revision { epoch: 1, number: 1 };
    Team { team_id: TeamId::from_stored(&format!("t{i}")), display_name: display_name.into(), revision }
}

fn respond(items: Vec<Team>, more: bool) -> (Vec<proto::Team>, String) {
    let binding = Binding::of(&proto::ListTeamsRequest::default());
    let next = items.last().filter(|_| more).map(|team| team.team_id.clone());
    binding.respond(Listed { items, next }, |team| team.team_id.clone(), crate::grpc::convert::directory::to_team)
}

#[test]
fn only_the_last_page_has_no_next() {
    assert_eq!(respond(vec![team(0, "")], false).1, "");
    assert_eq!(respond(vec![], false).1, "");
    let page_token = respond(vec![team(0, ""), team(1, "")], true).1;
    let mut next = proto::ListTeamsRequest { page_token, ..proto::ListTeamsRequest::default() };
    let (page, _) = page::<_, TeamId>(&mut next).expect("good");
    assert_eq!(page.after, Some(TeamId::from_stored("t1")));
}

#[test]
fn a_page_that_found_nothing_in_its_share_says_where_to_go_on() {
    let request = proto::ListTeamsRequest::default();
    let looked_through = TeamId::from_stored("t7");
    let listed = Listed { items: Vec::new(), next: Some(looked_through.clone()) };
    let (teams, page_token) = Binding::of(&request).respond(
        listed,
        |team: &Team| team.team_id.clone(),
        crate::grpc::convert::directory::to_team,
    );
    assert!(teams.is_empty());
    let mut next = proto::ListTeamsRequest { page_token, ..request };
    assert_eq!(page::<_, TeamId>(&mut next).expect("good").0.after, Some(looked_through));
}

#[test]
fn a_page_ends_before_it_grows_too_large_for_clients() {
    let large = "x".repeat(1 << 20);
    let (teams, next) = respond((0..5).map(|i| team(i, &large)).collect(), false);
    assert_eq!(teams.len(), 2);
    assert_ne!(next, "");
    let (teams, _) = respond(vec![team(0, &"x".repeat(5 << 20))], false);
    assert_eq!(teams.len(), 1, "at least one, or no list would ever end");
}
