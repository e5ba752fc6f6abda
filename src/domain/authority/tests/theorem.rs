//! The theorem: no call raises a key's authority beyond what its caller holds, hence no principal reaches
//! through keys what it never held itself. And the proof that this test would notice.

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{
    model::{Asked, Bearer, Judge, Kind, Step, Token, World, real, some_steps, some_world},
    oracle::{Granted, Triples, amount_to, beyond, with_implied},
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
            if !judged.done {
                prop_assert_eq!(&before.keys, &world.keys, "a refused call changes nothing");
            }
        }
    }

    /// The sum of all calls: keys hold nothing that no user and no key held from the start, or held by name.
    #[test]
    fn authority_never_comes_from_nowhere(world in some_world(), steps in some_steps()) {
        let mut world = world;
        let mut ever = Ever::default();
        world.everyone().for_each(|bearer| ever.note(&world, bearer));
        let start: Vec<_> = world.everyone().map(|bearer| (bearer, world.granted(bearer))).collect();
        for step in &steps {
            let judged = world.step(step, real, None);
            if judged.is_some_and(|judged| judged.operated) {
                break; // An operator is outside the theorem.
            }
            world.everyone().take(world.users.len()).for_each(|user| ever.note(&world, user));
            start.iter().for_each(|(bearer, start)| ever.note_kept(&world, *bearer, start));
            prop_assert_eq!(ever.gained(&world, world.everyone()), Triples::new(), "after {:?}", step);
        }
    }

    /// One attacker, every token it can get, and everything those can get, whatever the catalogue becomes.
    #[test]
    fn no_principal_reaches_through_keys_what_it_never_held(
        world in some_world(),
        steps in some_steps(),
        who in 0..6usize,
        manages in any::<bool>(),
        retiring in proptest::bool::weighted(0.3),
    ) {
        let mut world = world;
        if manages {
            world.promote(who);
        }
        prop_assert_eq!(attack(world, &steps, who, retiring, real), Triples::new());
    }
}

/// What was ever held, at its scope and by name: what it amounts to is a question of the catalogue, and changing
/// that is the operator's grant to everyone who holds the name.
#[derive(Default)]
struct Ever(Granted);

impl Ever {
    fn note(&mut self, world: &World, bearer: Bearer) {
        self.0.extend(with_implied(&world.specs, &world.granted(bearer)));
    }

    /// Notes what names that were granted to a key from the start, and that it still has, amount to by now: what it
    /// was given since is not its own, and what a name comes to imply is the catalogue's grant to everyone who has it.
    fn note_kept(&mut self, world: &World, bearer: Bearer, start: &Granted) {
        let kept = world.granted(bearer).intersection(start).cloned().collect();
        self.0.extend(with_implied(&world.specs, &kept));
    }

    /// What some hold now and this does not amount to.
    fn gained(&self, world: &World, who: impl Iterator<Item = Bearer>) -> Triples {
        let reached: Triples = who.flat_map(|bearer| world.held(bearer)).collect();
        beyond(&reached, &amount_to(&world.specs, &self.0))
    }
}

/// What an attacker gets beyond what it has itself held, calling with all tokens it comes by. It may start with the
/// retiring token of its key alone.
fn attack(mut world: World, steps: &[Step], who: usize, retiring: bool, judge: Judge) -> Triples {
    let key = |principal: usize| principal.checked_sub(world.users.len());
    let end = key(who).and_then(|key| world.keys[key].retiring_until).filter(|_| retiring);
    let own = Bearer { principal: who, token: end.map_or(Token::Current, Token::Retiring) };
    let (users, mut gang, mut ever) = (world.users.len(), BTreeSet::from([own]), Ever::default());
    ever.note(&world, own);
    let start = world.granted(own);
    for step in steps {
        let judged = world.step(step, judge, Some(&gang));
        if judged.as_ref().is_some_and(|judged| judged.operated) {
            break;
        }
        if let Some(key) = judged.filter(|judged| judged.done).and_then(|judged| judged.obtained) {
            // What it had of that key before is the retiring token now, or ended.
            let principal = users + key;
            let had_current = gang.contains(&Bearer { principal, token: Token::Current });
            gang.retain(|bearer| bearer.principal != principal);
            gang.insert(Bearer { principal, token: Token::Current });
            let end = world.keys[key].retiring_until.filter(|_| had_current);
            gang.extend(end.map(|end| Bearer { principal, token: Token::Retiring(end) }));
        }
        if who < users {
            ever.note(&world, own);
        } else {
            ever.note_kept(&world, own, &start);
        }
        let gained = ever.gained(&world, gang.iter().copied());
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
        // By chance with the retiring token of its key, or the current one.
        let retiring = steps.len() % 2 == 1;
        !attack(world, &steps, who, retiring, mutant).is_empty()
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

fn dormant_names_left_out(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| {
        let Asked { caller, before, after, .. } = asked;
        // As if the caller held every name that confers nothing.
        let all = [&before.grants, &after.grants].map(|grants| {
            let scope = grants.team_scope.iter().flat_map(|scope| scope.permissions());
            grants.account_permissions.iter().chain(scope).cloned().collect()
        });
        caller.named = Named::User(all.map(|names| (RolePermissions::Named(names), None)).into());
    })
}

fn names_on_one_team_taken_for_all(asked: &Asked) -> Result<(), Error> {
    doctored(asked, |asked| match &mut asked.caller.named {
        Named::User(roles) => roles.iter_mut().for_each(|(_, team)| *team = None),
        Named::Key(grants) => {
            let scope = grants.team_scope.iter().flat_map(|scope| scope.permissions());
            grants.account_permissions.extend(scope.cloned().collect::<Vec<_>>());
        }
    })
}

/// Managing counts as what its closed set says, as if a dormant name made no manager.
fn dormant_managing_left_out(asked: &Asked) -> Result<(), Error> {
    let live = |grants: &Grants| Held::of(grants, &asked.catalogue);
    let manages = |grants: &Grants| asked.catalogue.manage().is_some_and(|bit| live(grants).anywhere(bit));
    match real(asked) {
        Err(Error::NotAllowed { rule: "M5", .. })
            if !manages(&asked.before.grants) && !manages(&asked.after.grants) =>
        {
            Ok(())
        }
        verdict => verdict,
    }
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
        if let Identity::Key { token_end_time, .. } = &mut asked.caller.identity {
            *token_end_time = None;
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
    let mutants: [(&str, &str, Judge); 18] = [
        ("dormant names left out", "M4", dormant_names_left_out),
        ("names on one team taken for all", "M4", names_on_one_team_taken_for_all),
        ("dormant managing left out", "M5", dormant_managing_left_out),
        ("a retiring token's end left out", "M4", retiring_taken_for_current),
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
    // Without it nothing is gained, for a holder of a name holds what it implies; but `view` beside
    // `edit` would count as an addition.
    assert!(too_strict(without_closure));
}

#[test]
fn an_attacker_exploits_every_gap_in_confinement() {
    let mutants: [(&str, Judge); 8] = [
        ("dormant names left out", dormant_names_left_out),
        ("names on one team taken for all", names_on_one_team_taken_for_all),
        ("a retiring token's end left out", retiring_taken_for_current),
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
