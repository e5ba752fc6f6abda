//! The theorem: no call raises a key's authority beyond what its caller holds, hence nobody reaches
//! through keys what it never held itself. And the proof that this test would notice.

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{
    model::{Asked, Judge, Kind, Step, World, real, some_steps, some_world},
    oracle::{Triples, beyond},
    *,
};

const CASES: u32 = 1_000;
const MUTANT_CASES: u32 = 20_000;

fn config() -> ProptestConfig {
    // `PROPTEST_CASES` raises what the default run keeps short.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { CASES };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// M1-M8 in full: allowed if and only if no rule objects, hidden if and only if M3 says so.
    #[test]
    fn every_call_is_judged_as_the_rules_say(world in some_world(), steps in some_steps()) {
        let mut world = world;
        for step in &steps {
            let before = world.clone();
            let Some(judged) = world.step(step, real, None) else { continue };
            prop_assert_eq!(judged.allowed, judged.objections.is_empty(), "{:?}: {:?}", step, judged.objections);
            if let Some(visible) = judged.visible {
                prop_assert_eq!(judged.hidden, !visible, "{:?}", step);
            }
            if !judged.allowed {
                prop_assert_eq!(&before.keys, &world.keys, "a refused call changes nothing");
            }
        }
    }

    /// The sum of all calls: keys hold nothing that no user and no key held from the start.
    #[test]
    fn authority_never_comes_from_nowhere(world in some_world(), steps in some_steps()) {
        let mut world = world;
        let mut ever = everyone(&world);
        for step in &steps {
            let judged = world.step(step, real, None);
            if judged.is_some_and(|judged| judged.operated) {
                break; // An operator is outside the theorem.
            }
            (0..world.users.len()).for_each(|user| ever.extend(world.held(user)));
            prop_assert_eq!(beyond(&everyone(&world), &ever), Triples::new(), "after {:?}", step);
        }
    }

    /// One attacker, every token it can get, and everything those can get.
    #[test]
    fn nobody_reaches_through_keys_what_it_never_held(
        world in some_world(),
        steps in some_steps(),
        who in 0..6usize,
        manages in any::<bool>(),
    ) {
        let mut world = world;
        if manages {
            world.promote(who);
        }
        prop_assert_eq!(attack(world, &steps, who, real), Triples::new());
    }
}

fn everyone(world: &World) -> Triples {
    (0..world.users.len() + world.keys.len()).flat_map(|principal| world.held(principal)).collect()
}

/// What an attacker gets beyond what it has itself held, calling with all tokens it comes by.
fn attack(mut world: World, steps: &[Step], who: usize, judge: Judge) -> Triples {
    let mut gang = BTreeSet::from([who]);
    let mut ever = world.held(who);
    for step in steps {
        let judged = world.step(step, judge, Some(&gang));
        if judged.as_ref().is_some_and(|judged| judged.operated) {
            break;
        }
        if let Some(key) = judged.filter(|judged| judged.allowed).and_then(|judged| judged.obtained) {
            gang.insert(world.users.len() + key);
        }
        if who < world.users.len() {
            ever.extend(world.held(who));
        }
        let reached: Triples = gang.iter().flat_map(|principal| world.held(*principal)).collect();
        let gained = beyond(&reached, &ever);
        if !gained.is_empty() {
            return gained;
        }
    }
    Triples::new()
}

// === planted mutants: a judge with a rule broken must be caught, by that rule ===

fn found(run: impl Fn(World, Vec<Step>, usize) -> bool) -> bool {
    let config = ProptestConfig { cases: MUTANT_CASES, max_shrink_iters: 0, failure_persistence: None, ..config() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let caught = runner.run(&(some_world(), some_steps(), 0..6usize), |(world, steps, who)| {
        if run(world, steps, who) { Err(TestCaseError::fail("caught")) } else { Ok(()) }
    });
    matches!(caught, Err(TestError::Fail(..)))
}

/// True if the oracle objects, by this rule, to something that the mutant allows.
fn caught_by(rule: &str, mutant: Judge) -> bool {
    found(|mut world, steps, _| {
        let judged = steps.iter().filter_map(|step| world.step(step, mutant, None));
        judged
            .take_while(|j| !j.allowed || j.objections.is_empty() || j.objections.contains(rule))
            .any(|j| j.allowed && j.objections.contains(rule))
    })
}

/// True if the mutant refuses what no rule objects to.
fn too_strict(mutant: Judge) -> bool {
    found(|mut world, steps, _| {
        let judged = steps.iter().filter_map(|step| world.step(step, mutant, None));
        judged.take_while(|j| j.allowed <= j.objections.is_empty()).any(|j| !j.allowed && j.objections.is_empty())
    })
}

/// True if an attacker gains something under the mutant.
fn exploited(mutant: Judge) -> bool {
    found(|mut world, steps, who| {
        world.promote(who);
        !attack(world, &steps, who, mutant).is_empty()
    })
}

fn doctored(asked: &Asked, doctor: impl FnOnce(&mut Asked)) -> Result<(), Error> {
    let mut asked = asked.clone();
    doctor(&mut asked);
    real(&asked)
}

fn without_closure(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        let mut flat = asked.catalogue.permissions().to_vec();
        flat.iter_mut().for_each(|permission| permission.spec.implies.clear());
        asked.catalogue = Catalogue::new(REVISION, flat);
    })
}

fn without_before(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| asked.before.grants = asked.after.grants.clone())
}

fn without_after(asked: &Asked) -> Result<(), Error> {
    let Asked { caller, before, after, catalogue, .. } = asked;
    if asked.kind != Kind::Update {
        return real(asked);
    }
    caller.managed(catalogue).may_manage(&before.grants)?;
    let added = Held::of(&after.grants, catalogue).added_since(&Held::of(&before.grants, catalogue));
    caller.may_confer(&added, after.expire_time, catalogue)
}

fn without_the_callers_expiry(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        if let Identity::Key { expire_time, .. } = &mut asked.caller.identity {
            *expire_time = None;
        }
    })
}

fn without_judging_extensions(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| asked.before.expire_time = None)
}

fn teams_taken_for_the_account(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        let held = &mut asked.caller.held;
        held.account = held.teams.values().fold(held.account, |all, set| all.union(set));
    })
}

fn keys_taken_for_users(asked: &Asked) -> Result<(), Error> {
    let identity = Identity::User { user_id: UserId::from_stored("x"), service_key_id: id(1_000) };
    doctored(asked, |asked| asked.caller.identity = identity)
}

fn a_key_not_knowing_itself(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| asked.key_id = id(1_000))
}

fn retiring_taken_for_current(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        if let Identity::Key { token, .. } = &mut asked.caller.identity {
            *token = TokenRole::Current;
        }
    })
}

fn any_grace(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| asked.grace = MINUTE)
}

fn rotation_taken_for_an_edit(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        if asked.kind == Kind::Rotate {
            asked.kind = Kind::Update;
        }
    })
}

fn enabling_taken_for_narrowing(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        if asked.kind == Kind::Enable {
            asked.kind = Kind::Narrow;
        }
    })
}

fn viewing_taken_for_managing(asked: &Asked) -> Result<(), Error> {
    match asked.kind {
        Kind::Narrow => check_visible(&asked.caller, &asked.before, &asked.catalogue),
        _ => real(asked),
    }
}

fn everything_visible(asked: &Asked) -> Result<(), Error> {
    match real(asked) {
        Err(Error::NotFound(_)) if asked.kind == Kind::Narrow => Ok(()),
        verdict => verdict,
    }
}

#[test]
fn the_oracle_bites() {
    let mutants: [(&str, &str, Judge); 14] = [
        ("before left out", "M4", without_before),
        ("before left out", "M2", without_before),
        ("after left out", "M2", without_after),
        ("the caller's expiry left out", "M4", without_the_callers_expiry),
        ("extensions not judged", "M4", without_judging_extensions),
        ("teams taken for the account", "M4", teams_taken_for_the_account),
        ("keys taken for users", "M5", keys_taken_for_users),
        ("a key not knowing itself", "M6", a_key_not_knowing_itself),
        ("retiring taken for current", "M6", retiring_taken_for_current),
        ("any grace", "M6", any_grace),
        ("rotation taken for an edit", "M4", rotation_taken_for_an_edit),
        ("enabling taken for narrowing", "M4", enabling_taken_for_narrowing),
        ("viewing taken for managing", "M2", viewing_taken_for_managing),
        ("everything visible", "M3", everything_visible),
    ];
    for (name, rule, mutant) in mutants {
        assert!(caught_by(rule, mutant), "{name}: not caught by {rule}");
    }
}

#[test]
fn a_judge_without_the_closure_is_too_strict() {
    // Without it nothing is gained, for whoever holds a name holds what it implies; but `view` beside
    // `edit` would count as an addition.
    assert!(too_strict(without_closure));
}

#[test]
fn an_attacker_exploits_every_gap_in_confinement() {
    let mutants: [(&str, Judge); 5] = [
        ("before left out", without_before),
        ("the caller's expiry left out", without_the_callers_expiry),
        ("extensions not judged", without_judging_extensions),
        ("teams taken for the account", teams_taken_for_the_account),
        ("rotation taken for an edit", rotation_taken_for_an_edit),
    ];
    for (name, mutant) in mutants {
        assert!(exploited(mutant), "{name}: no attack found");
    }
}
