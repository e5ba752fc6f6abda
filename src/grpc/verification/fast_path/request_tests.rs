use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::proto::{self, StreamVerifyTokensRequest, TokenCheck, VerifyTokenRequest, VerifyTokensRequest};

/// A catalogue of two.
fn known(name: &str) -> Option<Bit> {
    let place = ["catalog.view", "catalog.edit"].iter().position(|known| *known == name)?;
    Bit::catalogue(place as u16)
}

fn requirement(account: &str, permission: &str, teams: &[&str]) -> proto::Requirement {
    let team_ids = teams.iter().map(|team| (*team).to_owned()).collect();
    proto::Requirement { account_id: account.into(), permission: permission.into(), team_ids }
}

fn check(token: &str, requirement: Option<proto::Requirement>) -> TokenCheck {
    TokenCheck { token: token.into(), requirement }
}

/// A field of bytes, as short as it must be here.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).expect("short")], value].concat()
}

fn read(requirement: &[u8]) -> Option<RequirementView<'_>> {
    read_requirement(requirement, |name| known(str::from_utf8(name).ok()?))
}

fn teams(needed: &RequirementView<'_>) -> Vec<String> {
    let mut teams = Vec::new();
    needed.team_ids.any(|team| {
        teams.push(String::from_utf8(team.to_vec()).expect("it was read"));
        false
    });
    teams
}

fn assert_asks(question: &Question<'_, &str, TeamIdsView<'_>>, check: &TokenCheck) {
    assert_eq!(question.token, check.token.as_bytes());
    assert_eq!(question.requirement.is_some(), check.requirement.is_some());
    for (read, sent) in question.requirement.iter().zip(&check.requirement) {
        assert_eq!((read.account_id, Some(read.permission)), (&sent.account_id[..], known(&sent.permission)));
        assert_eq!(teams(read), sent.team_ids);
    }
}

/// More requirements than are remembered, many of them alike, each met again and again.
fn checks() -> Vec<TokenCheck> {
    let one = |number: usize| {
        let (team, other) = (format!("t{}", number % 70), format!("t{}", number % 3));
        let permission = ["catalog.view", "catalog.edit"][number / 2 % 2];
        let requirement = match number % 4 {
            0 => None,
            1 => Some(requirement("acme", permission, &[])),
            2 => Some(requirement("acme", permission, &[&team])),
            _ => Some(requirement(&team, permission, &[&other, &team, &other])),
        };
        check(&format!("lk_{}", number % 5), requirement)
    };
    (0..CHECKS_MAX).map(one).collect()
}

#[test]
fn requests_as_clients_send_them_are_parsed() {
    let checks = checks();
    let message = VerifyTokensRequest { checks: checks.clone(), min_revision: None }.encode_to_vec();
    let batch = BatchView::read(&message, known).expect("well-formed");
    assert_eq!(batch.questions().len(), checks.len());
    batch.questions().iter().zip(&checks).for_each(|(question, check)| assert_asks(question, check));
    let message = StreamVerifyTokensRequest { correlation_id: 7, checks: checks[..32].to_vec(), min_revision: None };
    let message = message.encode_to_vec();
    let batch = BatchView::read_message(&message, known).expect("well-formed");
    assert_eq!((batch.correlation_id, batch.questions().len()), (7, 32));
    batch.questions().iter().zip(&checks).for_each(|(question, check)| assert_asks(question, check));
    for check in &checks[..8] {
        let TokenCheck { token, requirement } = check.clone();
        let message = VerifyTokenRequest { token, requirement, min_revision: None }.encode_to_vec();
        let single = CheckView::read(&message).expect("well-formed");
        let requirement = single.requirement(known).expect("well-formed");
        assert_asks(&Question { token: single.token, requirement: requirement.as_ref() }, check);
    }
}

#[test]
fn fields_come_in_any_order() {
    let message = [field(3, b"red"), field(2, b"catalog.edit"), field(3, b"blue"), field(1, b"acme")].concat();
    let needed = read(&message).expect("all is there");
    assert_eq!((needed.account_id, Some(needed.permission)), ("acme", known("catalog.edit")));
    assert_eq!(teams(&needed), ["red", "blue"]);
    let message = [field(2, &message), field(1, b"lk_1")].concat();
    let (token, requirement) = read_check(&message).expect("all is there");
    assert_eq!((token, requirement.map(<[u8]>::len)), (&b"lk_1"[..], Some(message.len() - 8)));
}

#[test]
fn a_request_that_is_not_well_formed_is_left_to_the_slow_path() {
    let (account, permission) = (field(1, b"acme"), field(2, b"catalog.view"));
    assert!(read(&[&account[..], &permission].concat()).is_some());
    for (added, why) in [
        (field(1, b"acme"), "an account that stands twice"),
        (field(2, b"catalog.view"), "a permission that stands twice"),
        (field(3, b""), "a team without a name"),
        (field(3, b"not a team"), "a team that is none"),
        (field(3, b"\xff"), "a team that is no text"),
        (field(4, b"new"), "a field that is new"),
        (field(0, b"acme"), "a field that cannot be"),
        (vec![1 << 3, 5], "a number for a text"),
        (vec![1 << 3 | 5, 0, 0, 0, 0], "a wire type that is not ours"),
        (vec![3 << 3 | 2, 9, b'x'], "a text that is cut"),
        (vec![3 << 3 | 2], "a text that is not there"),
        ([&[3 << 3 | 2][..], &[0xff; 9], &[1]].concat(), "a text without an end"),
        ([0x80; 11].to_vec(), "a key without an end"),
    ] {
        assert!(read(&[&account[..], &permission, &added].concat()).is_none(), "{why}");
    }
    for (alone, why) in [(vec![], "nothing"), (account, "no permission"), (permission, "no account")] {
        assert!(read(&alone).is_none(), "{why}");
    }
    for requirement in [requirement("acme", "no.such", &[]), requirement("", "catalog.view", &[])] {
        assert!(read(&requirement.encode_to_vec()).is_none());
    }
    for check in [
        [field(1, b"lk_1"), field(1, b"lk_1")].concat(),
        [field(2, b""), field(2, b"")].concat(),
        field(1, b"\xff"),
        field(3, b""),
    ] {
        assert!(read_check(&check).is_none(), "{check:?}");
    }
}

#[test]
fn a_message_has_some_checks_and_a_requirement_so_many_teams_and_no_more() {
    let many = |count: usize| VerifyTokensRequest { checks: vec![check("x", None); count], min_revision: None };
    for (count, fits) in [(0, false), (1, true), (CHECKS_MAX, true), (CHECKS_MAX + 1, false)] {
        assert_eq!(BatchView::read(&many(count).encode_to_vec(), known).is_some(), fits, "{count}");
    }
    for (count, fits) in [(TEAMS_MAX, true), (TEAMS_MAX + 1, false)] {
        let requirement = requirement("acme", "catalog.view", &vec!["t"; count]).encode_to_vec();
        assert_eq!(read(&requirement).is_some(), fits, "{count}");
    }
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_read_or_left(message in proptest::collection::vec(any::<u8>(), 0..60)) {
        prop_assert!(requirement_slot(&message) < REQUIREMENT_SLOTS);
        let _ = (read(&message), CheckView::read(&message), BatchView::read(&message, known).is_some());
    }
}
