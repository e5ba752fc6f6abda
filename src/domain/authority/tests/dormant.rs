//! M4 and M5 on names that confer nothing now and come back with a later catalogue: retired (`old`), unknown
//! (`gone.by`), for accounts only where it stands on a team (`pay`).

use super::*;

/// Everything that hands out a whole key.
fn all_whole(caller: &Caller, theirs: &Subject) -> [Result<(), Error>; 4] {
    let sooner = until(1, theirs.clone());
    [
        enable(caller, theirs),
        rotate(caller, theirs),
        update(caller, &sooner, &until(2, theirs.clone())),
        update(caller, &sooner, theirs),
    ]
}

#[test]
fn m4_a_dormant_name_is_handed_out_only_by_who_holds_it_by_name() {
    for (theirs, name, team) in [
        (key(&["old"], &[], &[]), "old", None),
        (key(&["gone.by", "view"], &[], &[]), "gone.by", None),
        (key(&[], &["t"], &["old", "view"]), "old", Some("t")),
        (key(&[], &["t"], &["gone.by"]), "gone.by", Some("t")),
        (key(&[], &["t"], &["pay"]), "pay", Some("t")),
    ] {
        let on_team: &[(&str, &[&str])] = &[("t", &[name])];
        let on_other: &[(&str, &[&str])] = &[("u", &[name])];
        let without = [user(&[MANAGE, "edit"], &[]), user(&[MANAGE, "edit"], on_other)];
        let keys = [key(&[MANAGE, "edit"], &[], &[]), key(&[MANAGE, "edit"], &["u"], &[name])];
        for caller in without.into_iter().chain(keys.iter().map(acme_key)) {
            for result in all_whole(&caller, &theirs) {
                lacks(name, team, result);
            }
        }
        // Account-wide it covers every team, and only so the account.
        let mut with = vec![user(&[MANAGE, "edit", name], &[]), acme_key(&key(&[MANAGE, "edit", name], &[], &[]))];
        if team.is_some() {
            with.extend([user(&[MANAGE, "edit"], on_team), acme_key(&key(&[MANAGE, "edit"], &["t"], &[name]))]);
        } else {
            lacks(name, team, rotate(&user(&[MANAGE, "edit"], on_team), &theirs));
        }
        for caller in with.into_iter().chain([operator()]) {
            for result in all_whole(&caller, &theirs) {
                assert_eq!(result, Ok(()), "{name}");
            }
        }
    }
}

#[test]
fn m4_a_dormant_name_is_missed_on_each_team() {
    let theirs = key(&[], &["t", "u"], &["view", "old"]);
    for on in [&["t", "u"][..], &["t"]] {
        let held: Vec<(&str, &[&str])> = on.iter().map(|team| (*team, &["old"][..])).collect();
        let one = user(&[MANAGE, "view"], &held);
        if on.len() == 2 {
            assert_eq!(rotate(&one, &theirs), Ok(()))
        } else {
            lacks("old", Some("u"), rotate(&one, &theirs))
        }
    }
}

#[test]
fn m4_what_is_taken_away_by_the_same_edit_is_not_handed_out() {
    let ann = user(&[MANAGE, "view"], &[]);
    assert_eq!(update(&ann, &until(1, key(&["old", "view"], &[], &[])), &key(&["view"], &[], &[])), Ok(()));
    let (before, after) = (key(&["view"], &["t"], &["old"]), key(&["view"], &[], &[]));
    assert_eq!(update(&ann, &until(1, before), &after), Ok(()));
}

#[test]
fn m7_a_key_with_a_dormant_name_is_narrowed_and_renamed_by_any_manager() {
    let ann = user(&[MANAGE], &[]);
    let theirs = key(&["old", "view"], &["t"], &["gone.by"]);
    assert_eq!(narrow(&ann, &theirs), Ok(()));
    assert_eq!(update(&ann, &theirs, &theirs), Ok(()));
    assert_eq!(update(&ann, &theirs, &until(9, theirs.clone())), Ok(()));
}

#[test]
fn m4_everything_has_what_the_catalogue_retired_and_no_more() {
    let owner = user_of(vec![(RolePermissions::Everything, None)]);
    assert_eq!(rotate(&owner, &key(&["old"], &["t"], &["old", "pay"])), Ok(()));
    lacks("gone.by", None, rotate(&owner, &key(&["gone.by"], &[], &[])));
    lacks("system.later", None, rotate(&owner, &key(&["system.later"], &[], &[])));
    // A `system.` name in a role counts for nothing, whatever was stored (A4).
    lacks("system.later", None, rotate(&user(&[MANAGE, "system.later"], &[]), &key(&["system.later"], &[], &[])));
}

#[test]
fn m4_a_live_name_is_handed_out_by_who_holds_it_by_implication() {
    // What holding it amounts to is compared: all that it confers now, the caller holds now.
    assert_eq!(rotate(&user(&[MANAGE, "edit"], &[]), &key(&["view"], &[], &[])), Ok(()));
}

#[test]
fn m6_a_key_that_rotates_itself_keeps_its_dormant_names() {
    let own = key(&[ROTATE_SELF, "old"], &["t"], &["gone.by"]);
    assert_eq!(
        check_rotate(&bearer(id(2), &AccountId::from_stored("acme"), &own), id(2), &own, MINUTE, &catalogue()),
        Ok(())
    );
}

/// The catalogue with `api_keys.manage` changed.
fn manage_is(change: impl FnOnce(&mut PermissionSpec)) -> Catalogue {
    let mut specs: Vec<_> = catalogue().permissions().iter().map(|permission| permission.spec.clone()).collect();
    change(specs.iter_mut().find(|spec| spec.name == MANAGE).expect("it is there"));
    applied(specs)
}

#[test]
fn m5_managing_that_is_retired_makes_managers_all_the_same() {
    let catalogue = manage_is(|manage| manage.retired = true);
    let own = key(&[ROTATE_SELF, MANAGE], &[], &[]);
    let me = Caller { held: Held::of(&own.grants, &catalogue), ..bearer(id(2), &AccountId::from_stored("acme"), &own) };
    refused_by("M5", check_rotate(&me, id(2), &own, MINUTE, &catalogue));
    // And to rotate oneself takes the permission as it is now (M6).
    let retired = PermissionSpec { retired: true, ..spec(ROTATE_SELF, true, &[]) };
    let catalogue = applied(vec![retired, spec("view", true, &[])]);
    let own = key(&[ROTATE_SELF, "view"], &[], &[]);
    let me = Caller { held: Held::of(&own.grants, &catalogue), ..me };
    lacks(ROTATE_SELF, None, check_rotate(&me, id(2), &own, MINUTE, &catalogue));
}

#[test]
fn m5_managing_that_is_dormant_on_teams_makes_managers_all_the_same() {
    let catalogue = manage_is(|manage| manage.team_scopable = false);
    let boss = key(&[MANAGE, "view"], &[], &[]);
    let boss = Caller { held: Held::of(&boss.grants, &catalogue), ..acme_key(&boss) };
    let theirs = key(&[], &["t"], &[MANAGE, "view"]);
    refused_by("M5", check_rotate(&boss, id(2), &theirs, MINUTE, &catalogue));
    refused_by("M5", check_enable(&boss, id(2), &theirs, &catalogue));
    refused_by("M5", check_update(&boss, id(2), &until(1, theirs.clone()), &theirs, &catalogue));
}
