use super::*;

struct Unused;
impl Usage for Unused {
    fn held_on_teams(&self, _: &str) -> bool {
        false
    }
}

struct Used;
impl Usage for Used {
    fn held_on_teams(&self, _: &str) -> bool {
        true
    }
}

const REVISION: Revision = Revision { epoch: 1, number: 1 };

fn spec(name: &str, team_scopable: bool, implies: &[&str]) -> PermissionSpec {
    PermissionSpec {
        name: name.into(),
        description: String::new(),
        team_scopable,
        implies: implies.iter().map(|s| (*s).to_owned()).collect(),
        retired: false,
    }
}

fn empty() -> Catalogue {
    Catalogue::new(Revision { epoch: 1, number: 0 }, vec![])
}

fn applied(specs: Vec<PermissionSpec>) -> Catalogue {
    Catalogue::new(REVISION, plan(&empty(), specs, &Unused).expect("a good catalogue"))
}

#[test]
fn p2_sets_are_closed_under_implies_transitively() {
    let catalogue = applied(vec![spec("a", true, &["b"]), spec("b", true, &["c"]), spec("c", true, &["a"])]);
    assert_eq!(catalogue.closed(["b"]), catalogue.everything());
    assert_eq!(catalogue.names(&catalogue.closed(["b"])), ["a", "b", "c"]);
}

#[test]
fn p1_a_retired_permission_grants_nothing_and_keeps_its_bit() {
    let first = applied(vec![spec("a", true, &["b"]), spec("b", true, &[]), spec("c", true, &[])]);
    let retired_b = PermissionSpec { retired: true, ..spec("b", true, &[]) };
    let next = vec![spec("a", true, &[]), retired_b, spec("c", true, &[]), spec("d", false, &[])];
    let second = Catalogue::new(REVISION, plan(&first, next, &Unused).expect("good"));
    assert_eq!(second.bit("b"), None);
    assert_eq!(second.closed(["b"]), PermissionSet::EMPTY);
    assert_eq!(second.bit("c"), first.bit("c"));
    assert_eq!(second.bit("d").map(Bit::index), Some(3));
}

#[test]
fn p1_a_permission_is_never_left_out() {
    let first = applied(vec![spec("a", true, &[]), spec("b", true, &[])]);
    let error = plan(&first, vec![spec("a", true, &[])], &Unused).expect_err("b is missing");
    assert!(error.to_string().contains("`b` is missing"), "{error}");
}

#[test]
fn p1_losing_team_scopable_is_refused_while_in_use() {
    let first = applied(vec![spec("a", true, &[])]);
    let next = || vec![spec("a", false, &[])];
    assert!(matches!(plan(&first, next(), &Used), Err(Error::InUse(_))));
    assert!(plan(&first, next(), &Unused).is_ok());
}

/// Looking for a name on every key takes long where keys are many, and mostly there is nothing to look for.
#[test]
fn p1_only_what_loses_team_scopable_is_looked_for() {
    let first = applied(vec![spec("a", true, &[]), spec("b", false, &[]), spec("c", true, &[])]);
    let next = [spec("a", true, &[]), spec("b", false, &[]), spec("c", false, &[]), spec("d", false, &[])];
    assert_eq!(losing_team_scopable(&first, &next).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn p1_at_most_256_permissions() {
    let specs = |n: usize| (0..n).map(|i| spec(&format!("p{i}"), false, &[])).collect::<Vec<_>>();
    assert_eq!(plan(&empty(), specs(256), &Unused).map(|p| p.len()), Ok(256));
    assert!(matches!(plan(&empty(), specs(257), &Unused), Err(Error::Invalid(_))));
}

#[test]
fn p5_a_team_scopable_permission_implies_only_team_scopable_ones() {
    let error = plan(&empty(), vec![spec("a", true, &["b"]), spec("b", false, &[])], &Unused).expect_err("P5");
    assert!(error.to_string().contains("catalogue.permissions[0].implies[0]"), "{error}");
    assert!(plan(&empty(), vec![spec("a", false, &["b"]), spec("b", true, &[])], &Unused).is_ok());
}

#[test]
fn p5_nothing_implies_managing_rotating_or_the_system() {
    for implied in [MANAGE, ROTATE_SELF, "system.verify", "system.anything"] {
        let specs = vec![spec("a", true, &[implied]), spec(MANAGE, true, &[]), spec(ROTATE_SELF, true, &[])];
        assert!(matches!(plan(&empty(), specs, &Unused), Err(Error::Invalid(_))), "{implied}");
    }
}

#[test]
fn a4_system_names_are_refused() {
    for name in ["system.verify", "system.other", "system"] {
        assert!(matches!(plan(&empty(), vec![spec(name, false, &[])], &Unused), Err(Error::Invalid(_))), "{name}");
    }
}

#[test]
fn a3_operate_implies_the_other_system_permissions_and_everything_excludes_them() {
    let catalogue = applied(vec![spec("a", true, &[])]);
    let operate = catalogue.closed(["system.operate"]);
    assert!(SystemPermission::ALL.iter().all(|p| operate.contains(p.bit())));
    assert!(SystemPermission::ALL.iter().all(|p| !catalogue.everything().contains(p.bit())));
    assert_eq!(catalogue.names(&catalogue.closed(["system.verify"])), ["system.verify"]);
}
