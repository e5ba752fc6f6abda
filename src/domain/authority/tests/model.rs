//! A small account, random calls on its keys, and both judges of every call.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    oracle::{self, Asker, Call, FOREVER, Granted, Key, Names, Spec, State, Triples, User},
    *,
};

const PLAIN: [&str; 3] = ["a", "b", "c"];
/// What may be written into a grant; the last three are unknown here, or known in account `system` only.
const GRANTABLE: [&str; 9] =
    ["a", "b", "c", MANAGE, MANAGE, ROTATE_SELF, "no.such_permission", "system.verify", "system.operate"];

#[derive(Clone, Debug)]
pub enum Edit {
    Account(&'static str),
    Team(&'static str),
    OnTeams(&'static str),
    Until(i64),
}

#[derive(Clone, Debug)]
pub enum Op {
    Create(Key),
    Update(usize, Vec<Edit>),
    Enable(usize),
    Disable(usize),
    Delete(usize),
    Rotate(usize, u32),
    /// The directory's business, outside the theorem.
    SetRoles(usize, User),
    /// A user is deleted, and another one is given its id (A5).
    RecreateUser(usize, User),
    /// A team is deleted, and another one is given its id (A5).
    RecreateTeam(&'static str),
    /// Permissions are retired or brought back, imply other ones, may be held on teams or not.
    Apply(Vec<Spec>),
    Wait(i64),
}

/// An operation and who calls it: users first, then keys.
#[derive(Clone, Debug)]
pub struct Step {
    caller: usize,
    /// Presents the retiring token of its key, if it has one.
    retiring: bool,
    op: Op,
}

/// Who can present what: a user, or a key by one of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bearer {
    pub principal: usize,
    pub token: Token,
}

/// Which token is in hand: the current one, or one that ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    Current,
    Retiring(i64),
}

#[derive(Clone, Debug)]
pub struct World {
    pub specs: Vec<Spec>,
    pub catalogue: Catalogue,
    pub in_system: bool,
    pub users: Vec<User>,
    pub keys: Vec<Key>,
    now: i64,
}

/// A call as the code under test sees it.
#[derive(Clone)]
pub struct Asked {
    pub caller: Caller,
    pub kind: Kind,
    pub key_id: KeyId,
    pub before: Subject,
    pub after: Subject,
    pub grace: Span,
    pub catalogue: Catalogue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Create,
    Update,
    Enable,
    Narrow,
    Rotate,
}

pub type Judge = fn(&Asked) -> Result<(), Error>;

/// The judge under test.
pub fn real(asked: &Asked) -> Result<(), Error> {
    let Asked { caller, kind, key_id, before, after, grace, catalogue } = asked;
    match kind {
        Kind::Create => check_create(caller, after, catalogue),
        Kind::Update => check_update(caller, *key_id, before, after, catalogue),
        Kind::Enable => check_enable(caller, *key_id, before, catalogue),
        Kind::Narrow => check_narrow(caller, before, catalogue),
        Kind::Rotate => check_rotate(caller, *key_id, before, *grace, catalogue),
    }
}

/// What became of a step.
pub struct Judged {
    pub allowed: bool,
    pub hidden: bool,
    pub objections: BTreeSet<&'static str>,
    /// The oracle's opinion on visibility; `None` where it does not matter.
    pub visible: Option<bool>,
    /// It was allowed, and what it asks for can be granted: it was carried out.
    pub done: bool,
    /// The key whose token the caller now has.
    pub obtained: Option<usize>,
    pub operated: bool,
}

// === strategies ===

fn some_names(most: usize) -> impl Strategy<Value = Names> {
    vec(select(&GRANTABLE[..]), 0..=most).prop_map(|names| names.into_iter().collect())
}

fn some_time() -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(FOREVER), 3 => 1..4i64]
}

fn some_key(most: usize) -> impl Strategy<Value = Key> {
    let scope = (vec(select(&["t", "u", "v"][..]), 0..=2), some_names(most));
    let state = prop_oneof![4 => Just(State::Active), 1 => Just(State::Disabled)];
    let retiring = prop_oneof![1 => Just(None), 1 => (1..4i64).prop_map(Some)];
    (prop_oneof![2 => Just(Names::new()), 3 => some_names(most)], scope, some_time(), state, retiring).prop_map(
        |(account, (teams, on_teams), until, state, retiring_until)| {
            // A retiring token never outlives its key's expiry (K8).
            let retiring_until = retiring_until.map(|end| end.min(until));
            Key { account, teams: teams.into_iter().collect(), on_teams, until, state, retiring_until }.tidy()
        },
    )
}

fn some_user() -> impl Strategy<Value = User> {
    let on_teams = vec((select(&["t", "u", "v"][..]), select(&GRANTABLE[..7])), 0..=5);
    (some_names(4), on_teams).prop_map(|(account, on_teams)| {
        let account = account.into_iter().filter(|name| !name.starts_with("system.")).collect();
        User { account, on_teams: on_teams.into_iter().collect() }
    })
}

fn some_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        select(&GRANTABLE[..]).prop_map(Edit::Account),
        select(&["t", "u", "v"][..]).prop_map(Edit::Team),
        select(&GRANTABLE[..]).prop_map(Edit::OnTeams),
        some_time().prop_map(Edit::Until),
    ]
}

/// A key by its age: the newest most often, for that one the caller may have made itself.
fn some_target() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 2 => 0..16usize]
}

fn some_step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        3 => some_key(1).prop_map(Op::Create),
        5 => (some_target(), vec(some_edit(), 0..=2)).prop_map(|(key, edits)| Op::Update(key, edits)),
        2 => some_target().prop_map(Op::Enable),
        1 => some_target().prop_map(Op::Disable),
        1 => some_target().prop_map(Op::Delete),
        3 => (some_target(), select(&[0, 59, 60, 3_600][..])).prop_map(|(key, grace)| Op::Rotate(key, grace)),
        1 => (0..16usize, some_user()).prop_map(|(user, roles)| Op::SetRoles(user, roles)),
        1 => (0..16usize, some_user()).prop_map(|(user, roles)| Op::RecreateUser(user, roles)),
        1 => select(&["t", "u", "v"][..]).prop_map(Op::RecreateTeam),
        2 => some_specs().prop_map(Op::Apply),
        1 => (0..2i64).prop_map(Op::Wait),
    ];
    (0..16usize, proptest::bool::weighted(0.3), op).prop_map(|(caller, retiring, op)| Step { caller, retiring, op })
}

fn some_specs() -> impl Strategy<Value = Vec<Spec>> {
    let one = (proptest::bool::weighted(0.7), vec(select(&PLAIN[..]), 0..=2), proptest::bool::weighted(0.15));
    (vec(one, 3), 0..12u8, 0..12u8).prop_map(|(drawn, manage, rotate)| {
        let flags = |name: &str| PLAIN.iter().position(|plain| *plain == name).map(|i| (drawn[i].0, drawn[i].2));
        let plain = PLAIN.iter().zip(&drawn).map(|(name, (team_scopable, implies, retired))| {
            // Only edges that P5 and retirement allow; cycles are welcome.
            let good = |to: &&&'static str| {
                flags(to).is_some_and(|(scopable, dead)| (scopable || !team_scopable) && (!dead || *retired))
            };
            let implies = implies.iter().filter(good).copied().collect();
            Spec { name, team_scopable: *team_scopable, implies, retired: *retired }
        });
        let special = [(MANAGE, manage), (ROTATE_SELF, rotate)].into_iter().filter(|(_, kind)| *kind != 0);
        let special = special.map(|(name, kind)| Spec {
            name,
            team_scopable: kind != 1,
            implies: Names::new(),
            retired: kind == 2,
        });
        plain.chain(special).collect()
    })
}

pub fn some_world() -> impl Strategy<Value = World> {
    let people = (vec(some_user(), 2), vec(some_key(3), 4));
    (some_specs(), people, proptest::bool::weighted(0.15)).prop_map(|(specs, (users, mut keys), in_system)| {
        keys.iter_mut().for_each(|key| key.keep_to(in_system));
        let mut world = World { catalogue: applied(vec![]), specs: vec![], in_system, users, keys, now: 0 };
        world.apply(specs);
        world
    })
}

pub fn some_steps() -> impl Strategy<Value = Vec<Step>> {
    vec(some_step(), 1..12)
}

// === impl Key ===

impl Key {
    /// Both lists of a team scope, or neither (K2).
    fn tidy(mut self) -> Self {
        if self.teams.is_empty() || self.on_teams.is_empty() {
            self.teams.clear();
            self.on_teams.clear();
        }
        self
    }

    /// `system.` names are for keys of account `system` (A4).
    fn keep_to(&mut self, in_system: bool) {
        if !in_system {
            self.account.retain(|name| !name.starts_with("system."));
            self.on_teams.retain(|name| !name.starts_with("system."));
            *self = self.clone().tidy();
        }
    }

    fn edited(&self, edits: &[Edit]) -> Self {
        let mut key = self.clone();
        for edit in edits {
            let (set, item) = match *edit {
                Edit::Account(name) => (&mut key.account, name),
                Edit::Team(team) => (&mut key.teams, team),
                Edit::OnTeams(name) => (&mut key.on_teams, name),
                Edit::Until(end) => {
                    key.until = end;
                    key.retiring_until = key.retiring_until.map(|retiring| retiring.min(end));
                    continue;
                }
            };
            if !set.remove(item) {
                set.insert(item);
            }
        }
        key.tidy()
    }

    fn subject(&self) -> Subject {
        let list = |names: &Names| names.iter().copied().collect::<Vec<_>>();
        let grants = grants(&list(&self.account), &list(&self.teams), &list(&self.on_teams));
        Subject { grants, expire_time: (self.until != FOREVER).then(|| Timestamp::from_micros(self.until)) }
    }
}

// === impl World ===

impl World {
    /// What may be presented now: users, then the tokens of keys that are active.
    fn callers(&self) -> impl Iterator<Item = Bearer> {
        let users = if self.in_system { 0 } else { self.users.len() };
        let current = |principal| Bearer { principal, token: Token::Current };
        let tokens = move |n: usize| {
            let (key, bearer) = (&self.keys[n], current(self.users.len() + n));
            let awake = key.state == State::Active && key.until > self.now;
            let retiring = key.retiring_until.filter(|end| *end > self.now).map(Token::Retiring);
            let both = std::iter::once(Token::Current).chain(retiring);
            both.filter(move |_| awake).map(move |token| Bearer { token, ..bearer })
        };
        (0..users).map(current).chain((0..self.keys.len()).flat_map(tokens))
    }

    /// Applies a catalogue to the one before: what it leaves out is retired (P1).
    fn apply(&mut self, mut specs: Vec<Spec>) {
        let left_out = self.specs.iter().filter(|old| !specs.iter().any(|new| new.name == old.name));
        let retired: Vec<_> =
            left_out.map(|old| Spec { retired: true, implies: Names::new(), ..old.clone() }).collect();
        specs.extend(retired);
        let spec = |s: &Spec| PermissionSpec {
            retired: s.retired,
            ..spec(s.name, s.team_scopable, &s.implies.iter().copied().collect::<Vec<_>>())
        };
        // As if nothing were held on teams: a name may fall asleep there too.
        let permissions = plan(&self.catalogue, specs.iter().map(spec).collect(), &Unused).expect("a good catalogue");
        self.catalogue = Catalogue::new(REVISION, permissions);
        self.specs = specs;
    }

    /// Takes a team from all keys and users (A5).
    fn delete_team(&mut self, team: &'static str) {
        for key in &mut self.keys {
            key.teams.remove(team);
            *key = key.clone().tidy();
        }
        self.users.iter_mut().for_each(|user| user.on_teams.retain(|(on, _)| *on != team));
    }

    /// Makes a principal an account-level manager: the attacker with the most to gain.
    pub fn promote(&mut self, principal: usize) {
        match principal.checked_sub(self.users.len()) {
            None => self.users[principal].account.insert(MANAGE),
            Some(key) => self.keys[key].account.insert(MANAGE),
        };
    }

    /// What a user, or a key, was granted: for as long as the token in hand lasts.
    pub fn granted(&self, bearer: Bearer) -> Granted {
        let granted = match bearer.principal.checked_sub(self.users.len()) {
            None => oracle::granted_to_user(&self.users[bearer.principal]),
            Some(key) => oracle::granted_to_key(&self.keys[key]),
        };
        match bearer.token {
            Token::Current => granted,
            Token::Retiring(end) => {
                granted.into_iter().map(|(scope, name, until)| (scope, name, until.min(end))).collect()
            }
        }
    }

    /// What it holds.
    pub fn held(&self, bearer: Bearer) -> Triples {
        oracle::amount_to(&self.specs, &self.granted(bearer))
    }

    /// Every user, and every key by its current token.
    pub fn everyone(&self) -> impl Iterator<Item = Bearer> + use<> {
        (0..self.users.len() + self.keys.len()).map(|principal| Bearer { principal, token: Token::Current })
    }

    fn asker(&self, bearer: Bearer) -> Asker {
        let key = bearer.principal.checked_sub(self.users.len());
        let until = key.map_or(FOREVER, |key| self.keys[key].until);
        let (until, retiring) = match bearer.token {
            Token::Current => (until, false),
            Token::Retiring(end) => (until.min(end), true),
        };
        Asker { holds: self.held(bearer), granted: self.granted(bearer), until, key, retiring }
    }

    fn caller(&self, bearer: Bearer) -> Caller {
        let account_id = if self.in_system { AccountId::system() } else { AccountId::from_stored("acme") };
        let Some(key) = bearer.principal.checked_sub(self.users.len()) else {
            let user = &self.users[bearer.principal];
            let base = RolePermissions::Named(user.account.iter().map(|name| (*name).to_owned()).collect());
            let on_teams = user
                .on_teams
                .iter()
                .map(|(team, name)| (RolePermissions::Named(names(&[name])), Some(TeamId::from_stored(team))));
            let roles: Vec<_> = on_teams.chain([(base, None)]).collect();
            let user_id = UserId::from_stored(&bearer.principal.to_string());
            let identity = Identity::User { user_id, service_key_id: id(1_000) };
            return Caller {
                account_id,
                identity,
                held: user_held(&roles, &self.catalogue),
                named: Named::User(roles),
            };
        };
        let own = self.keys[key].subject();
        let token_end_time = match bearer.token {
            Token::Current => None,
            Token::Retiring(end) => Some(Timestamp::from_micros(end)),
        };
        let identity = Identity::Key { key_id: id(key as u128), expire_time: own.expire_time, token_end_time };
        Caller { account_id, identity, held: Held::of(&own.grants, &self.catalogue), named: Named::Key(own.grants) }
    }

    /// Judges a step by both and carries it out if the judge under test allows it; `None` if there
    /// was nothing to judge. Only callers among `gang`, if any, may call.
    pub fn step(&mut self, step: &Step, judge: Judge, gang: Option<&BTreeSet<Bearer>>) -> Option<Judged> {
        let bearer = self.who_calls(step, gang);
        let (n, before) = match &step.op {
            Op::SetRoles(user, roles) | Op::RecreateUser(user, roles) => {
                let user = user % self.users.len();
                self.users[user] = roles.clone();
                return None;
            }
            Op::RecreateTeam(team) => {
                self.delete_team(team);
                return None;
            }
            Op::Apply(specs) => {
                self.apply(specs.clone());
                return None;
            }
            Op::Wait(micros) => {
                self.now += micros;
                return None;
            }
            Op::Create(_) => (self.keys.len(), None),
            Op::Update(n, _) | Op::Enable(n) | Op::Disable(n) | Op::Delete(n) | Op::Rotate(n, _) => {
                let n = self.keys.len() - 1 - n % self.keys.len();
                (n, Some(self.keys[n].clone()))
            }
        };
        let mut after = match (&step.op, &before) {
            (Op::Create(new), _) => Key { state: State::Active, retiring_until: None, ..new.clone() },
            (Op::Update(_, edits), Some(before)) => before.edited(edits),
            (_, before) => before.clone().expect("every call but create is on a key"),
        };
        after.keep_to(self.in_system);
        let bearer = bearer?;
        let asker = self.asker(bearer);
        let was = before.as_ref().unwrap_or(&after);
        let (kind, call, grace) = match &step.op {
            Op::Create(_) => (Kind::Create, Call::Create { after: &after }, 0),
            Op::Update(..) => (Kind::Update, Call::Update { key: n, before: was, after: &after }, 0),
            Op::Enable(_) => (Kind::Enable, Call::Enable { key: n, before: was }, 0),
            Op::Rotate(_, secs) => (Kind::Rotate, Call::Rotate { key: n, before: was, grace_secs: *secs }, *secs),
            _ => (Kind::Narrow, Call::Narrow { before: was }, 0),
        };
        let asked = Asked {
            caller: self.caller(bearer),
            kind,
            key_id: id(n as u128),
            before: was.subject(),
            after: after.subject(),
            grace: Span::from_secs(grace),
            catalogue: self.catalogue.clone(),
        };
        let verdict = judge(&asked);
        let of_itself = kind == Kind::Rotate && asker.key == Some(n);
        let judged = Judged {
            allowed: verdict.is_ok(),
            done: verdict.is_ok() && self.grantable(&asked),
            hidden: matches!(verdict, Err(Error::NotFound(_))),
            objections: oracle::objections(&self.specs, &asker, call),
            visible: (kind != Kind::Create && !of_itself).then(|| asker.may_view(was)),
            obtained: matches!(kind, Kind::Create | Kind::Rotate).then_some(n),
            operated: asker.operates(),
        };
        if judged.done {
            self.carry_out(&step.op, n, after);
        }
        Some(judged)
    }

    /// Whose turn it is, if anybody may call.
    fn who_calls(&self, step: &Step, gang: Option<&BTreeSet<Bearer>>) -> Option<Bearer> {
        let callers: Vec<_> = self.callers().filter(|who| gang.is_none_or(|gang| gang.contains(who))).collect();
        let bearer = *callers.get(step.caller % callers.len().max(1))?;
        let prefers = |who: &&Bearer| (who.token == Token::Current) != step.retiring;
        let of_same = callers.iter().filter(|who| who.principal == bearer.principal);
        Some(of_same.clone().find(prefers).copied().unwrap_or(bearer))
    }

    /// What the use-cases check after authority (M8): an edit adds no name that confers nothing.
    fn grantable(&self, asked: &Asked) -> bool {
        let Asked { caller, before, after, kind, catalogue, .. } = asked;
        let nothing = Grants::default();
        let before = match kind {
            Kind::Create => &nothing,
            Kind::Update => &before.grants,
            Kind::Enable | Kind::Narrow | Kind::Rotate => return true,
        };
        after.grants.check_grantable("api_key", before, &caller.account_id, catalogue).is_ok()
    }

    fn carry_out(&mut self, op: &Op, n: usize, after: Key) {
        match op {
            Op::Create(_) => self.keys.push(after),
            Op::Update(..) => self.keys[n] = after,
            Op::Enable(_) if after.state == State::Disabled => self.keys[n].state = State::Active,
            Op::Disable(_) if after.state == State::Active => self.keys[n].state = State::Disabled,
            Op::Delete(_) => self.keys[n].state = State::Deleted,
            Op::Rotate(_, grace) => {
                // The model's time runs in steps of one.
                let end = self.now
                    + match grace {
                        0 => 0,
                        60 => 2,
                        _ => 3,
                    };
                self.keys[n].retiring_until = Some(end.min(self.keys[n].until));
            }
            _ => {}
        }
    }
}
