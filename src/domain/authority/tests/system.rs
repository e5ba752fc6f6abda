//! A3 and A4: the reserved account, its permissions, and the reach of `system.operate`.

use super::*;

fn system_key(account: &[&str]) -> Caller {
    bearer(id(1), &AccountId::system(), &key(account, &[], &[]))
}

#[test]
fn a4_authority_ends_at_the_own_account() {
    let acme = AccountId::from_stored("acme");
    let other = AccountId::from_stored("other");
    assert_eq!(user(&[], &[]).reach(&acme), Ok(()));
    let services = ["system.verify", "system.directory", "system.impersonate", "system.events", MANAGE];
    for caller in [user(&[MANAGE], &[]), acme_key(&key(&[MANAGE], &[], &[])), system_key(&services)] {
        assert_eq!(caller.reach(&other), Err(Error::NotFound(ObjectKind::Account)));
    }
    assert_eq!(system_key(&services).reach(&AccountId::system()), Ok(()));
}

#[test]
fn a3_an_operator_reaches_and_manages_every_account() {
    let acme = AccountId::from_stored("acme");
    assert_eq!(operator().reach(&acme), Ok(()));
    let theirs = key(&["pay", MANAGE], &["t"], &["edit"]);
    assert_eq!(create(&operator(), &theirs), Ok(()));
    assert_eq!(update(&operator(), &key(&[], &[], &[]), &theirs), Ok(()));
    assert_eq!(enable(&operator(), &theirs), Ok(()));
    assert_eq!(rotate(&operator(), &theirs), Ok(()));
    assert_eq!(narrow(&operator(), &theirs), Ok(()));
}

#[test]
fn a3_operate_implies_the_other_system_permissions() {
    for permission in SystemPermission::ALL {
        assert!(operator().holds(permission));
        assert_eq!(system_key(&["system.events"]).holds(permission), permission == SystemPermission::Events);
    }
    assert!(!system_key(&["system.verify", "system.impersonate"]).operates());
}

#[test]
fn m4_an_operator_that_expires_confers_nothing_for_longer() {
    let short = bearer(id(1), &AccountId::system(), &until(100, key(&["system.operate"], &[], &[])));
    assert_eq!(create(&short, &until(100, key(&["pay"], &[], &[]))), Ok(()));
    refused_by("M4", create(&short, &key(&["pay"], &[], &[])));
    refused_by("M4", rotate(&short, &until(101, key(&["pay"], &[], &[]))));
}

#[test]
fn m4_system_permissions_are_confined_like_all_others() {
    let boss = system_key(&[MANAGE, "system.verify"]);
    assert_eq!(create(&boss, &key(&["system.verify"], &[], &[])), Ok(()));
    lacks("system.directory", None, create(&boss, &key(&["system.directory"], &[], &[])));
    lacks("system.events", None, rotate(&boss, &key(&["system.events"], &[], &[])));
    assert_eq!(create(&operator(), &key(&["system.directory"], &[], &[])), Ok(()));
}

#[test]
fn a4_no_call_mints_operators() {
    let operate = key(&["system.operate"], &[], &[]);
    for caller in [operator(), system_key(&[MANAGE, "system.verify"])] {
        refused_by("A4", create(&caller, &operate));
        refused_by("A4", update(&caller, &key(&["system.verify"], &[], &[]), &operate));
        refused_by("A4", rotate(&caller, &operate));
    }
    let own = key(&["system.operate", ROTATE_SELF], &[], &[]);
    let me = bearer(id(2), &AccountId::system(), &own);
    refused_by("A4", rotate(&me, &own));
}

#[test]
fn a4_only_an_operator_gives_an_operator_back_its_key() {
    let operate = until(50, key(&["system.operate"], &[], &[]));
    assert_eq!(enable(&operator(), &operate), Ok(()));
    assert_eq!(update(&operator(), &operate, &until(60, operate.clone())), Ok(()));
    let others: Vec<_> = SystemPermission::ALL.iter().map(|p| p.name()).filter(|n| *n != "system.operate").collect();
    let boss = system_key(&[&others[..], &[MANAGE]].concat());
    lacks("system.operate", None, enable(&boss, &operate));
    lacks("system.operate", None, update(&boss, &operate, &until(60, operate.clone())));
    // Taking it away is managing (M7).
    assert_eq!(narrow(&boss, &operate), Ok(()));
}

#[test]
fn m6_an_operator_cannot_edit_or_enable_itself() {
    let own = key(&["system.operate"], &[], &[]);
    refused_by("M6", check_update(&operator(), id(1), &own, &own, &catalogue()));
    refused_by("M6", check_enable(&operator(), id(1), &own, &catalogue()));
}

#[test]
fn a4_system_permissions_count_only_in_account_system() {
    let stray = acme_key(&key(&["system.operate"], &[], &[]));
    assert!(!stray.operates());
    assert!(SystemPermission::ALL.iter().all(|permission| !stray.holds(*permission)));
    assert_eq!(stray.managed(&catalogue()), Managed::Nothing);
    lacks(MANAGE, None, create(&stray, &key(&[], &[], &[])));
}

#[test]
fn a4_no_role_gives_a_user_a_system_permission() {
    let mallory = user(&["system.operate", MANAGE], &[("t", &["system.verify"])]);
    let everything = user_held(&[(RolePermissions::Everything, None)], &catalogue());
    for permission in SystemPermission::ALL {
        assert!(!mallory.held.anywhere(permission.bit()), "{permission:?}");
        assert!(!everything.anywhere(permission.bit()), "{permission:?}");
    }
}

#[test]
fn a4_no_caller_is_offered_system_operate() {
    let operate = SystemPermission::Operate.bit();
    assert!(!operator().can_confer(None, &catalogue()).contains(operate));
    assert!(operator().can_confer(None, &catalogue()).contains(SystemPermission::Verify.bit()));
    assert!(catalogue().everything().is_subset(&operator().can_confer(None, &catalogue())));
}
