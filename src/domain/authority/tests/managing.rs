//! M1-M3, M7 and M8: whose keys are whose.

use super::*;

fn manager_of(on: &[&str]) -> Caller {
    let held: Vec<(&str, &[&str])> = on.iter().map(|team| (*team, &[MANAGE, "edit"][..])).collect();
    user(&[], &held)
}

#[test]
fn m1_an_account_level_manager_manages_every_key() {
    let ann = user(&[MANAGE], &[]);
    for theirs in [key(&[], &[], &[]), key(&["pay"], &["t"], &["edit"]), key(&[], &["t", "u"], &[MANAGE])] {
        assert_eq!(check_visible(&ann, &theirs, &catalogue()), Ok(()));
        assert_eq!(narrow(&ann, &theirs), Ok(()));
        assert_eq!(update(&ann, &theirs, &theirs), Ok(()));
    }
}

#[test]
fn m1_who_manages_nothing_manages_no_key() {
    let bob = user(&["settings", "pay"], &[("t", &["edit"])]);
    assert_eq!(bob.managed(&catalogue()), Managed::Nothing);
    lacks(MANAGE, None, create(&bob, &key(&[], &["t"], &["view"])));
    for theirs in [key(&[], &[], &[]), key(&[], &["t"], &["view"])] {
        invisible(narrow(&bob, &theirs));
        invisible(update(&bob, &theirs, &theirs));
        invisible(enable(&bob, &theirs));
        invisible(rotate(&bob, &theirs));
    }
}

#[test]
fn m1_without_the_permission_in_the_catalogue_only_an_operator_manages() {
    let retired = vec![PermissionSpec { retired: true, ..spec(MANAGE, true, &[]) }, spec("view", true, &[])];
    for catalogue in [applied(vec![spec("view", true, &[])]), applied(retired)] {
        let owner = Caller { held: user_held(&[(RolePermissions::Everything, None)], &catalogue), ..user(&[], &[]) };
        assert_eq!(owner.managed(&catalogue), Managed::Nothing);
        assert_eq!(operator().managed(&catalogue), Managed::Account);
        assert_eq!(check_create(&operator(), &key(&["view"], &[], &[]), &catalogue), Ok(()));
    }
}

#[test]
fn m1_managing_counts_on_teams_only_while_it_is_team_scopable() {
    let catalogue = applied(vec![spec(MANAGE, false, &[])]);
    let held = Held::of(&grants(&[], &["t"], &[MANAGE]), &catalogue);
    assert_eq!(Caller { held, ..user(&[], &[]) }.managed(&catalogue), Managed::Nothing);
}

#[test]
fn m2_a_team_manager_manages_keys_within_its_teams() {
    let ann = manager_of(&["t", "u"]);
    for theirs in [key(&[], &["t"], &["view"]), key(&[], &["t", "u"], &["edit"]), key(&[], &["t"], &["pay"])] {
        assert_eq!(narrow(&ann, &theirs), Ok(()));
        assert_eq!(update(&ann, &theirs, &theirs), Ok(()));
    }
    assert_eq!(create(&ann, &key(&[], &["t", "u"], &["edit"])), Ok(()));
}

#[test]
fn m2_a_team_manager_cannot_touch_a_key_shared_with_another_team() {
    let theirs = key(&[], &["t", "v"], &["view"]);
    let ann = manager_of(&["t", "u"]);
    lacks(MANAGE, Some("v"), narrow(&ann, &theirs));
    lacks(MANAGE, Some("v"), enable(&ann, &theirs));
    lacks(MANAGE, Some("v"), rotate(&ann, &theirs));
    lacks(MANAGE, Some("v"), update(&ann, &theirs, &key(&[], &["t"], &["view"])));
}

#[test]
fn m2_a_team_manager_cannot_touch_a_key_with_account_level_permissions() {
    let ann = manager_of(&["t"]);
    // A name that grants nothing today is still an account-level permission.
    for account in ["view", "old", "never.heard_of"] {
        let theirs = key(&[account], &["t"], &["view"]);
        lacks(MANAGE, None, narrow(&ann, &theirs));
        lacks(MANAGE, None, rotate(&ann, &theirs));
        lacks(MANAGE, None, update(&ann, &theirs, &key(&[], &["t"], &["view"])));
        lacks(MANAGE, None, create(&ann, &theirs));
    }
}

#[test]
fn m2_a_team_manager_makes_only_team_scoped_keys() {
    lacks(MANAGE, None, create(&manager_of(&["t"]), &key(&[], &[], &[])));
    lacks(MANAGE, None, create(&manager_of(&["t"]), &key(&["view"], &[], &[])));
    lacks(MANAGE, Some("u"), create(&manager_of(&["t"]), &key(&[], &["t", "u"], &["view"])));
}

#[test]
fn m2_a_team_manager_moves_a_key_only_among_its_teams() {
    let theirs = key(&[], &["t"], &["view"]);
    let ann = manager_of(&["t", "u"]);
    assert_eq!(update(&ann, &theirs, &key(&[], &["u"], &["view"])), Ok(()));
    lacks(MANAGE, Some("v"), update(&ann, &theirs, &key(&[], &["v"], &["view"])));
    lacks(MANAGE, Some("v"), update(&ann, &theirs, &key(&[], &["t", "v"], &["view"])));
    lacks(MANAGE, None, update(&ann, &theirs, &key(&[], &[], &[])));
    lacks(MANAGE, None, update(&ann, &theirs, &key(&["view"], &["t"], &["view"])));
}

#[test]
fn m3_a_team_manager_views_keys_on_any_of_its_teams() {
    let managed = manager_of(&["t"]).managed(&catalogue());
    assert!(managed.may_view(&grants(&[], &["t", "v"], &["view"])));
    assert!(managed.may_view(&grants(&["pay"], &["t"], &["view"])));
    assert!(!managed.may_view(&grants(&[], &["v"], &["view"])));
    assert!(!managed.may_view(&grants(&["view"], &[], &[])));
    assert!(!managed.may_view(&grants(&[], &[], &[])));
}

#[test]
fn m3_listing_needs_some_managing_authority() {
    assert_eq!(user(&[MANAGE], &[]).managed(&catalogue()).require_any(), Ok(()));
    assert_eq!(manager_of(&["t"]).managed(&catalogue()).require_any(), Ok(()));
    lacks(MANAGE, None, user(&["settings"], &[("t", &["edit"])]).managed(&catalogue()).require_any());
}

#[test]
fn m7_taking_away_needs_no_more_than_managing() {
    let ann = manager_of(&["t"]);
    let rich = until(500, key(&[], &["t"], &["edit", ROTATE_SELF, MANAGE]));
    assert_eq!(narrow(&ann, &rich), Ok(()));
    assert_eq!(update(&ann, &rich, &until(400, rich.clone())), Ok(()));
    assert_eq!(update(&ann, &rich, &until(500, key(&[], &["t"], &[ROTATE_SELF]))), Ok(()));
    // What was taken away cannot be given back by who does not hold it.
    lacks(ROTATE_SELF, Some("t"), update(&ann, &until(400, key(&[], &["t"], &["edit"])), &rich));
}

#[test]
fn m7_a_key_narrows_and_deletes_even_keys_that_outlive_it() {
    let short = acme_key(&until(100, key(&[MANAGE], &[], &[])));
    let theirs = key(&["pay"], &[], &[]);
    assert_eq!(narrow(&short, &theirs), Ok(()));
    assert_eq!(update(&short, &theirs, &key(&[], &[], &[])), Ok(()));
    assert_eq!(update(&short, &theirs, &until(900, theirs.clone())), Ok(()));
}

#[test]
fn m8_what_one_may_not_view_is_not_found_whatever_else_is_wrong() {
    let ann = manager_of(&["t"]);
    let hidden = key(&["pay"], &["v"], &[MANAGE]);
    invisible(check_visible(&ann, &hidden, &catalogue()));
    invisible(narrow(&ann, &hidden));
    invisible(enable(&ann, &hidden));
    invisible(rotate(&ann, &hidden));
    invisible(update(&ann, &hidden, &key(&[], &["t"], &["view"])));
    // Even to a key with nothing, asking for itself by way of management.
    let poor = key(&["view"], &[], &[]);
    invisible(check_update(&acme_key(&poor), id(1), &poor, &poor, &catalogue()));
    invisible(check_enable(&acme_key(&poor), id(1), &poor, &catalogue()));
}

#[test]
fn m8_naming_a_team_one_does_not_manage_is_refused_by_name() {
    let may_name = |caller: Caller, team: &str| caller.managed(&catalogue()).may_name(&TeamId::from_stored(team));
    assert_eq!(may_name(user(&[MANAGE], &[]), "anything"), Ok(()));
    assert_eq!(may_name(manager_of(&["t"]), "t"), Ok(()));
    lacks(MANAGE, Some("v"), may_name(manager_of(&["t"]), "v"));
    lacks(MANAGE, Some("t"), may_name(user(&[], &[("t", &["edit"])]), "t"));
}
