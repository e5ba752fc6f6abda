//! M6: what a key may do to itself.

use super::*;

fn me(key: &Subject) -> Caller {
    bearer(id(2), &AccountId::from_stored("acme"), key)
}

fn rotate_self(own: &Subject, token: TokenRole, grace: Span) -> Result<(), Error> {
    let caller = match token {
        TokenRole::Current => me(own),
        TokenRole::Retiring => retiring(1_000, me(own)),
    };
    check_rotate(&caller, id(2), own, grace, &catalogue())
}

#[test]
fn m6_a_key_cannot_edit_enable_or_extend_itself() {
    let own = until(10, key(&[MANAGE, "edit"], &[], &[]));
    refused_by("M6", update(&me(&own), &own, &own));
    refused_by("M6", update(&me(&own), &own, &until(9, own.clone())));
    refused_by("M6", update(&me(&own), &own, &until(11, own.clone())));
    refused_by("M6", enable(&me(&own), &own));
}

#[test]
fn m6_a_key_may_always_take_authority_from_itself_that_it_manages() {
    let own = key(&[MANAGE], &[], &[]);
    assert_eq!(narrow(&me(&own), &own), Ok(()));
}

#[test]
fn m6_a_user_is_not_the_service_key_that_speaks_for_it() {
    let ann = user(&[MANAGE, "view"], &[]);
    assert_eq!(check_enable(&ann, id(99), &key(&["view"], &[], &[]), &catalogue()), Ok(()));
}

#[test]
fn m6_a_key_rotates_itself_with_the_permission_at_either_scope() {
    for own in [key(&[ROTATE_SELF, "pay"], &[], &[]), until(5, key(&[], &["t"], &["edit", ROTATE_SELF]))] {
        assert_eq!(rotate_self(&own, TokenRole::Current, MINUTE), Ok(()));
    }
    for own in [key(&["edit"], &["t"], &["edit"]), key(&[], &[], &[])] {
        lacks(ROTATE_SELF, None, rotate_self(&own, TokenRole::Current, MINUTE));
    }
    // Managing is no way round it.
    lacks(ROTATE_SELF, None, rotate_self(&key(&[MANAGE], &[], &[]), TokenRole::Current, MINUTE));
}

#[test]
fn m6_a_retiring_token_cannot_rotate_its_key() {
    refused_by("M6", rotate_self(&key(&[ROTATE_SELF], &[], &[]), TokenRole::Retiring, MINUTE));
}

#[test]
fn m6_a_key_that_rotates_itself_keeps_a_minute_of_grace() {
    let own = key(&[ROTATE_SELF], &[], &[]);
    for (micros, allowed) in [(0, false), (59_999_999, false), (60_000_000, true), (3_600_000_000, true)] {
        let result = rotate_self(&own, TokenRole::Current, Span::from_micros(micros).expect("not negative"));
        assert_eq!(result.is_ok(), allowed, "{micros}: {result:?}");
    }
    // A manager may end the old token at once.
    let ann = user(&[MANAGE, ROTATE_SELF], &[]);
    assert_eq!(check_rotate(&ann, id(2), &own, Span::ZERO, &catalogue()), Ok(()));
}

#[test]
fn m6_one_key_cannot_rotate_another_by_the_permission_to_rotate_itself() {
    let own = key(&[ROTATE_SELF], &[], &[]);
    invisible(rotate(&acme_key(&own), &own));
}

#[test]
fn m5_a_key_that_manages_cannot_rotate_itself() {
    for own in [key(&[ROTATE_SELF, MANAGE], &[], &[]), key(&[ROTATE_SELF], &["t"], &[MANAGE])] {
        refused_by("M5", rotate_self(&own, TokenRole::Current, MINUTE));
    }
}

#[test]
fn m4_a_key_rotates_another_within_what_it_holds() {
    let boss = acme_key(&key(&[MANAGE, "edit", ROTATE_SELF], &[], &[]));
    assert_eq!(rotate(&boss, &key(&["view"], &["t"], &["edit", ROTATE_SELF])), Ok(()));
    lacks("pay", None, rotate(&boss, &key(&["pay"], &[], &[])));
}

#[test]
fn m4_a_retiring_token_confers_nothing_that_outlives_it() {
    let boss = key(&[MANAGE, "edit"], &[], &[]);
    // The earlier of the two ends counts: the key's, or its token's.
    for (expiry, token_end, own_end) in [(None, 100, 100), (at(200), 100, 100), (at(100), 200, 100)] {
        let caller = retiring(token_end, acme_key(&Subject { expire_time: expiry, ..boss.clone() }));
        for (end, allowed) in [(at(own_end), true), (at(own_end + 1), false), (None, false)] {
            let theirs = |expire_time| Subject { expire_time, ..key(&["view"], &[], &[]) };
            let results = [
                create(&caller, &theirs(end)),
                create(&caller, &Subject { expire_time: end, ..key(&[], &[], &[]) }),
                enable(&caller, &theirs(end)),
                rotate(&caller, &theirs(end)),
                update(&caller, &theirs(at(1)), &theirs(end)),
                update(&caller, &theirs(end), &Subject { expire_time: end, ..key(&["edit"], &[], &[]) }),
            ];
            for result in results {
                if allowed { assert_eq!(result, Ok(()), "{end:?}") } else { refused_by("M4", result) }
            }
            // What takes authority away is not conferred (M7).
            assert_eq!(narrow(&caller, &theirs(end)), Ok(()));
            assert_eq!(update(&caller, &theirs(end), &theirs(end)), Ok(()));
        }
    }
}
