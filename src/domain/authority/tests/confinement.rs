//! M4 and M5: nothing is granted that is not held.

use super::*;

#[test]
fn m4_one_grants_what_one_holds_with_all_it_implies() {
    let ann = user(&[MANAGE, "settings"], &[("t", &["edit"])]);
    assert_eq!(create(&ann, &key(&["settings", "view"], &["t"], &["edit"])), Ok(()));
    lacks("edit", None, create(&ann, &key(&["edit"], &[], &[])));
    lacks("edit", Some("u"), create(&ann, &key(&[], &["t", "u"], &["edit"])));
    lacks("pay", None, create(&ann, &key(&["pay"], &[], &[])));
}

#[test]
fn m4_holding_a_part_of_what_a_name_implies_is_not_enough() {
    let part = Held::of(&grants(&[MANAGE, "view"], &[], &[]), &catalogue());
    let flat = applied(vec![spec("view", true, &[]), spec("edit", true, &[])]);
    let edit_without_view = Held::of(&grants(&["edit"], &[], &[]), &flat);
    let odd = Held { account: part.account.difference(&edit_without_view.account), ..part };
    let ann = Caller { held: odd, ..user(&[], &[]) };
    lacks("edit", None, create(&ann, &key(&["edit"], &[], &[])));
}

#[test]
fn m4_an_account_level_pair_covers_every_team_and_only_it_covers_the_account() {
    let wide = user(&[MANAGE, "edit"], &[]);
    assert_eq!(create(&wide, &key(&[], &["t", "any"], &["edit"])), Ok(()));
    let narrow = user(&[MANAGE], &[("t", &["edit"]), ("u", &["edit"])]);
    lacks("view", None, create(&narrow, &key(&["view"], &["t", "u"], &["edit"])));
}

#[test]
fn m4_an_edit_is_judged_by_what_it_adds() {
    let ann = user(&[MANAGE, "view"], &[]);
    let theirs = key(&["pay"], &["t"], &["edit"]);
    // Keeping what the key has, renaming it, and adding what the caller holds.
    assert_eq!(update(&ann, &theirs, &theirs), Ok(()));
    assert_eq!(update(&ann, &theirs, &key(&["pay", "view"], &["t"], &["edit"])), Ok(()));
    // `view` by name adds nothing to `edit`.
    assert_eq!(update(&user(&[MANAGE], &[]), &theirs, &key(&["pay"], &["t"], &["edit", "view"])), Ok(()));
    lacks("edit", Some("u"), update(&ann, &theirs, &key(&["pay"], &["t", "u"], &["edit"])));
    lacks("edit", Some("u"), update(&ann, &theirs, &key(&["pay"], &["u"], &["edit"])));
    lacks("edit", None, update(&ann, &theirs, &key(&["pay", "edit"], &["t"], &["edit"])));
}

#[test]
fn m4_moving_from_the_account_to_a_team_adds_nothing_and_back_adds_the_account() {
    let ann = user(&[MANAGE], &[]);
    assert_eq!(update(&ann, &key(&["edit"], &[], &[]), &key(&[], &["t"], &["edit"])), Ok(()));
    lacks("view", None, update(&ann, &key(&[], &["t"], &["edit"]), &key(&["edit"], &[], &[])));
    // Account-level `settings` gave `view` on every team: losing it there and keeping it here is no gain.
    assert_eq!(update(&ann, &key(&["settings"], &[], &[]), &key(&[], &["t"], &["view"])), Ok(()));
}

#[test]
fn m4_enabling_and_rotating_are_judged_on_the_whole_key() {
    let theirs = key(&["pay"], &["t"], &["edit"]);
    let enough = user(&[MANAGE, "pay"], &[("t", &["edit"])]);
    assert_eq!(enable(&enough, &theirs), Ok(()));
    assert_eq!(rotate(&enough, &theirs), Ok(()));
    lacks("pay", None, enable(&user(&[MANAGE, "edit"], &[]), &theirs));
    lacks("view", Some("t"), rotate(&user(&[MANAGE, "pay"], &[("u", &["edit"])]), &theirs));
}

#[test]
fn m4_moving_the_expiry_later_is_judged_on_the_whole_key() {
    let poor = user(&[MANAGE], &[]);
    let theirs = |end| Subject { expire_time: end, ..key(&["pay"], &[], &[]) };
    for (before, after) in [(at(10), at(11)), (at(10), None)] {
        lacks("pay", None, update(&poor, &theirs(before), &theirs(after)));
        assert_eq!(update(&user(&[MANAGE, "pay"], &[]), &theirs(before), &theirs(after)), Ok(()));
        // The authority that the same edit takes away is not conferred.
        assert_eq!(update(&poor, &theirs(before), &Subject { expire_time: after, ..key(&[], &[], &[]) }), Ok(()));
    }
    for (before, after) in [(at(10), at(9)), (None, at(9)), (at(10), at(10)), (None, None)] {
        assert_eq!(update(&poor, &theirs(before), &theirs(after)), Ok(()));
    }
}

#[test]
fn m4_time_is_authority_too() {
    let short = acme_key(&until(100, key(&[MANAGE, "edit"], &[], &[])));
    let ends = |end| Subject { expire_time: end, ..key(&["view"], &[], &[]) };
    for (end, allowed) in [(at(99), true), (at(100), true), (at(101), false), (None, false)] {
        let results = [
            create(&short, &ends(end)),
            create(&short, &Subject { expire_time: end, ..key(&[], &[], &[]) }),
            enable(&short, &ends(end)),
            rotate(&short, &ends(end)),
            update(&short, &until(1, ends(None)), &ends(end)),
            update(&short, &ends(end), &Subject { expire_time: end, ..key(&["edit"], &[], &[]) }),
        ];
        for result in results {
            if allowed { assert_eq!(result, Ok(()), "{end:?}") } else { refused_by("M4", result) }
        }
    }
    // Adding may come with shortening.
    assert_eq!(update(&short, &ends(None), &until(100, key(&["edit"], &[], &[]))), Ok(()));
    // Users and keys without an expiry are not bound by time.
    assert_eq!(create(&acme_key(&key(&[MANAGE, "edit"], &[], &[])), &ends(None)), Ok(()));
    assert_eq!(create(&user(&[MANAGE, "edit"], &[]), &ends(None)), Ok(()));
}

#[test]
fn m4_a_permission_without_a_name_is_refused_like_any_other() {
    let unnamed = Held {
        account: PermissionSet::of(crate::domain::permissions::permission::Bit::catalogue(200).expect("< 256")),
        ..Held::default()
    };
    assert!(user(&[MANAGE], &[]).covers(&unnamed, &catalogue()).is_err());
}

#[test]
fn p4_unknown_and_retired_names_and_empty_sets_grant_nothing() {
    let nothing = key(&["old", "never.heard_of"], &["t"], &["old", "pay"]);
    assert!(Held::of(&nothing.grants, &catalogue()).is_empty());
    assert_eq!(acme_key(&nothing).managed(&catalogue()), Managed::Nothing);
    // It is not for the taking all the same: see `dormant`.
    lacks("never.heard_of", None, rotate(&user(&[MANAGE], &[]), &nothing));
    assert_eq!(create(&user(&[MANAGE], &[]), &key(&[], &[], &[])), Ok(()));
    lacks("view", None, create(&user(&[MANAGE], &[]), &key(&["view"], &[], &[])));
}

#[test]
fn p5_what_is_not_team_scopable_counts_for_nothing_on_a_team() {
    // `settings` implies `view`, which is team-scopable: nothing of a name that may not stand there.
    let held = Held::of(&grants(&[], &["t"], &["settings", "pay"]), &catalogue());
    assert!(held.is_empty(), "{held:?}");
}

#[test]
fn m5_users_and_operators_make_managers() {
    let manager = key(&[], &["t"], &[MANAGE]);
    for caller in [user(&[MANAGE], &[]), user(&[], &[("t", &[MANAGE])]), operator()] {
        assert_eq!(create(&caller, &manager), Ok(()));
        assert_eq!(enable(&caller, &manager), Ok(()));
        assert_eq!(rotate(&caller, &manager), Ok(()));
        assert_eq!(update(&caller, &until(1, manager.clone()), &manager), Ok(()));
    }
}

#[test]
fn m5_a_key_cannot_make_managers() {
    let boss = acme_key(&key(&[MANAGE, "edit"], &[], &[]));
    let manager = key(&[], &["t"], &[MANAGE]);
    refused_by("M5", create(&boss, &manager));
    refused_by("M5", enable(&boss, &manager));
    refused_by("M5", rotate(&boss, &manager));
    refused_by("M5", update(&boss, &until(1, manager.clone()), &manager));
    refused_by("M5", update(&boss, &key(&[], &["t"], &["view"]), &manager));
    // Nor widen where one manages.
    refused_by("M5", update(&boss, &manager, &key(&[], &["t", "u"], &[MANAGE])));
    refused_by("M5", update(&boss, &manager, &key(&[MANAGE], &[], &[])));
    // It may edit one otherwise.
    assert_eq!(update(&boss, &manager, &key(&[], &["t"], &[MANAGE, "view"])), Ok(()));
    assert_eq!(narrow(&boss, &manager), Ok(()));
}
