//! The state that the log says there is: every event's changes, applied one after another.
//!
//! Whatever the API then shows must be exactly this, and whatever a call answered must be this as it was at the
//! call's revision (V5). An event that does not fit what came before it panics.

use std::collections::{BTreeMap, BTreeSet};

use latchkey::proto::{
    Account, AccountState, ApiKey, ApiKeyState, Event, EventKind, FieldChange, Role, RoleKind, Team, User, UserState,
};

type Id = (String, String);

/// Everything but what the log leaves out on purpose: comments, metadata, uses.
#[derive(Default)]
pub struct Model {
    pub keys: BTreeMap<Id, Key>,
    pub accounts: BTreeMap<String, Fields>,
    pub teams: BTreeMap<Id, Fields>,
    pub roles: BTreeMap<Id, Fields>,
    pub users: BTreeMap<Id, Fields>,
    /// What a new account starts with.
    pub default_roles: Vec<Role>,
}

/// An object as the log tells it: single values, lists, and the number of its last event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub values: BTreeMap<String, String>,
    pub lists: BTreeMap<String, BTreeSet<String>>,
    pub number: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Key {
    pub fields: Fields,
    /// The hints of its tokens with the number of the event that minted each, and the end that its rotation gave it.
    pub tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub minted_number: i64,
    pub end_micros: Option<i64>,
}

impl Model {
    /// Applies an event, which must be the next one.
    pub fn apply(&mut self, event: &Event) {
        let number = event.revision.expect("a revision").number;
        let target = event.target.as_ref().expect("a target");
        let id = (event.account_id.clone(), target.id.clone());
        match event.kind() {
            EventKind::Unspecified => panic!("unknown kind: {event:?}"),
            EventKind::CatalogueApplied | EventKind::RotatedTokenPresented | EventKind::AccountReadByOperator => {}
            EventKind::ApiKeyCreated => {
                assert!(!self.keys.contains_key(&id), "created twice: {event:?}");
                self.keys.entry(id).or_default().change(number, event);
            }
            EventKind::ApiKeyUpdated
            | EventKind::ApiKeyRotated
            | EventKind::ApiKeyDisabled
            | EventKind::ApiKeyEnabled
            | EventKind::ApiKeyDeleted
            | EventKind::ApiKeyRevoked
            | EventKind::RetiringTokenRevoked => {
                self.keys.get_mut(&id).unwrap_or_else(|| panic!("of no key: {event:?}")).change(number, event);
            }
            EventKind::AccountCreated => self.create_account(number, event),
            EventKind::AccountUpdated | EventKind::AccountSuspended | EventKind::AccountResumed => {
                self.accounts.get_mut(&event.account_id).expect("an account").change(number, &event.changes);
            }
            EventKind::AccountDeleted => panic!("no account is deleted here"),
            EventKind::HistoryAccepted => panic!("no history is accepted here"),
            EventKind::ChangeContinued
            | EventKind::TeamPurged
            | EventKind::AccountPurged
            | EventKind::ApiKeysErased
            | EventKind::PersonalDataErased => panic!("nothing here is large or old: {event:?}"),
            EventKind::TeamCreated | EventKind::TeamUpdated => upsert(&mut self.teams, id, number, event),
            EventKind::RoleCreated | EventKind::RoleUpdated => upsert(&mut self.roles, id, number, event),
            EventKind::UserCreated | EventKind::UserUpdated => upsert(&mut self.users, id, number, event),
            EventKind::RoleDeleted => drop(self.roles.remove(&id).expect("a role that was there")),
            EventKind::UserDeleted => drop(self.users.remove(&id).expect("a user that was there")),
            EventKind::TeamDeleted => self.delete_team(number, event),
        }
    }

    fn create_account(&mut self, number: i64, event: &Event) {
        let account = &event.account_id;
        let mut fields = Fields::default();
        fields.change(number, &event.changes);
        let named = fields.lists.remove("roles").unwrap_or_default();
        fields.values.insert("state".into(), "active".into());
        assert!(self.accounts.insert(account.clone(), fields).is_none(), "created twice: {event:?}");
        for role in &self.default_roles {
            assert!(named.contains(&role.role_id), "{event:?}");
            self.roles.insert((account.clone(), role.role_id.clone()), Fields { number, ..of_role(role) });
        }
    }

    /// Taken from all keys and users in the same event (A5).
    fn delete_team(&mut self, number: i64, event: &Event) {
        let team = &event.target.as_ref().expect("a target").id;
        self.teams.remove(&(event.account_id.clone(), team.clone())).expect("a team that was there");
        for key in &event.affected_key_ids {
            let fields = &mut self.keys.get_mut(&(event.account_id.clone(), key.clone())).expect("a key").fields;
            assert!(fields.list("team_scope.team_ids").remove(team), "{key} was not on {team}");
            if fields.list("team_scope.team_ids").is_empty() {
                fields.list("team_scope.permissions").clear();
            }
            fields.number = number;
        }
        let users = event.changes.iter().filter(|change| change.field == "users").flat_map(|change| &change.removed);
        for user in users {
            let fields = self.users.get_mut(&(event.account_id.clone(), user.clone())).expect("a user");
            let before = fields.list("team_roles").len();
            fields.list("team_roles").retain(|role| !role.starts_with(&format!("{team}/")));
            assert!(fields.list("team_roles").len() < before, "{user} had no role on {team}");
            fields.number = number;
        }
    }

    /// Asserts that a key, as the API shows it, is what the log says.
    #[track_caller]
    pub fn check_key(&self, shown: &ApiKey) {
        let key = self.keys.get(&(shown.account_id.clone(), shown.key_id.clone()));
        let key = key.unwrap_or_else(|| panic!("no event tells of {shown:?}"));
        let mut expected = key.fields.clone();
        let state = |state: ApiKeyState| state.as_str_name().trim_start_matches("API_KEY_STATE_").to_lowercase();
        let scope = shown.team_scope.clone().unwrap_or_default();
        let mut seen = Fields { number: number(&shown.etag), ..Fields::default() };
        seen.set("name", &shown.name);
        seen.set("state", &state(shown.state()));
        seen.set("token_hint", &shown.token_hint);
        seen.set(
            "expire_time",
            &match shown.expiry {
                Some(latchkey::proto::api_key::Expiry::ExpireTime(time)) => micros(time).to_string(),
                _ => String::new(),
            },
        );
        seen.lists.insert("account_permissions".into(), shown.account_permissions.iter().cloned().collect());
        seen.lists.insert("team_scope.team_ids".into(), scope.team_ids.into_iter().collect());
        seen.lists.insert("team_scope.permissions".into(), scope.permissions.into_iter().collect());
        // Shown only while the token works.
        let retiring = expected.values.remove("retiring_token_end_time").unwrap_or_default();
        if let Some(shown) = shown.retiring_token_end_time {
            assert_eq!(micros(shown).to_string(), retiring, "{key:?}");
        }
        assert_eq!(seen.clean(), expected.clean());
    }

    #[track_caller]
    pub fn check_team(&self, account: &str, shown: &Team) {
        let mut seen = Fields { number: number(&shown.etag), ..Fields::default() };
        seen.set("display_name", &shown.display_name);
        same(&self.teams, account, &shown.team_id, seen);
    }

    #[track_caller]
    pub fn check_role(&self, account: &str, shown: &Role) {
        same(&self.roles, account, &shown.role_id, Fields { number: number(&shown.etag), ..of_role(shown) });
    }

    #[track_caller]
    pub fn check_user(&self, account: &str, shown: &User) {
        let mut seen = Fields { number: number(&shown.etag), ..Fields::default() };
        seen.set("display_name", &shown.display_name);
        seen.set("base_role_id", &shown.base_role_id);
        seen.set("state", if shown.state() == UserState::Active { "active" } else { "deactivated" });
        seen.lists.insert("custom_role_ids".into(), shown.custom_role_ids.iter().cloned().collect());
        let roles = shown.team_roles.iter().map(|role| format!("{}/{}", role.team_id, role.role_id));
        seen.lists.insert("team_roles".into(), roles.collect());
        same(&self.users, account, &shown.user_id, seen);
    }

    #[track_caller]
    pub fn check_account(&self, shown: &Account) {
        let mut seen = Fields { number: number(&shown.etag), ..Fields::default() };
        seen.set("display_name", &shown.display_name);
        seen.set("state", if shown.state() == AccountState::Active { "active" } else { "suspended" });
        let expected = self.accounts.get(&shown.account_id).cloned().unwrap_or_default();
        assert_eq!(seen.clean(), expected.clean(), "account {}", shown.account_id);
        let live = |(id, key): &(&Id, &Key)| id.0 == shown.account_id && key.fields.values["state"] != "deleted";
        let count = self.keys.iter().filter(live).count();
        assert_eq!(shown.api_key_count, i32::try_from(count).expect("few"), "account {}", shown.account_id);
    }
}

impl Key {
    /// Whether the token before the current one ended with the rotation, without a grace period.
    pub fn retiring_ended(&self) -> bool {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_micros();
        let end = self.tokens.iter().rev().nth(1).and_then(|token| token.end_micros);
        end.is_some_and(|end| u128::try_from(end).is_ok_and(|end| end <= now))
    }

    fn change(&mut self, number: i64, event: &Event) {
        if matches!(event.kind(), EventKind::ApiKeyCreated | EventKind::ApiKeyRotated) {
            let end = event.changes.iter().find(|change| change.field == "retiring_token_end_time");
            let end = end.and_then(|change| change.after.parse().ok());
            if let Some(last) = self.tokens.last_mut() {
                last.end_micros = Some(end.expect("a rotation says when the token before ends"));
            }
            self.tokens.push(Token { minted_number: number, end_micros: None });
        }
        self.fields.change(number, &event.changes);
    }
}

impl Fields {
    /// Every change must fit what was there.
    fn change(&mut self, number: i64, changes: &[FieldChange]) {
        for change in changes {
            let is_list = !change.added.is_empty() || !change.removed.is_empty();
            if is_list {
                let list = self.list(&change.field);
                assert!(change.removed.iter().all(|item| list.remove(item)), "{number}: {change:?}");
                assert!(change.added.iter().all(|item| list.insert(item.clone())), "{number}: {change:?}");
            } else if change.field != "comment" && change.field != "metadata" {
                let before = self.values.insert(change.field.clone(), change.after.clone()).unwrap_or_default();
                assert_eq!(before, change.before, "{number}: {change:?}");
            }
        }
        self.number = number;
    }

    fn list(&mut self, field: &str) -> &mut BTreeSet<String> {
        self.lists.entry(field.to_owned()).or_default()
    }

    fn set(&mut self, field: &str, value: &str) {
        self.values.insert(field.to_owned(), value.to_owned());
    }

    /// Absent and empty are the same.
    fn clean(mut self) -> Self {
        self.values.retain(|_, value| !value.is_empty());
        self.lists.retain(|_, list| !list.is_empty());
        self
    }
}

fn upsert(objects: &mut BTreeMap<Id, Fields>, id: Id, number: i64, event: &Event) {
    let is_new = event.kind_name.ends_with(".created");
    assert_eq!(is_new, !objects.contains_key(&id), "{event:?}");
    objects.entry(id).or_default().change(number, &event.changes);
}

#[track_caller]
fn same(objects: &BTreeMap<Id, Fields>, account: &str, id: &str, seen: Fields) {
    let expected = objects.get(&(account.to_owned(), id.to_owned()));
    let expected = expected.unwrap_or_else(|| panic!("no event tells of {account}/{id}: {seen:?}"));
    assert_eq!(seen.clean(), expected.clone().clean(), "{account}/{id}");
}

fn of_role(role: &Role) -> Fields {
    let mut fields = Fields::default();
    fields.set("display_name", &role.display_name);
    fields.set("kind", &RoleKind::as_str_name(&role.kind()).trim_start_matches("ROLE_KIND_").to_lowercase());
    fields.set("all_permissions", if role.all_permissions { "true" } else { "" });
    fields.lists.insert("permissions".into(), role.permissions.iter().cloned().collect());
    fields
}

/// The number of the event that an etag stands for.
#[track_caller]
pub fn number(etag: &str) -> i64 {
    etag.split_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or_else(|| panic!("etag {etag}"))
}

fn micros(time: prost_types::Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}
