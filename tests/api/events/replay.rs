//! V5: the log alone tells what every key may do.

use std::collections::{BTreeMap, BTreeSet};

use latchkey::proto::{ApiKey, ApiKeyState, Event, EventKind, Team};

use crate::{
    calls::*,
    support::{World, calls::requests, random::Random, world::*},
};

/// What a key may do, as the log tells it or as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    name: String,
    account_permissions: BTreeSet<String>,
    team_ids: BTreeSet<String>,
    team_permissions: BTreeSet<String>,
    expire_micros: String,
    state: String,
    token_hint: String,
}

impl Held {
    fn of(key: &ApiKey) -> Self {
        let scope = key.team_scope.clone().unwrap_or_default();
        let micros =
            |time: prost_types::Timestamp| (time.seconds * 1_000_000 + i64::from(time.nanos / 1_000)).to_string();
        let expire_micros = match key.expiry {
            Some(latchkey::proto::api_key::Expiry::ExpireTime(time)) => micros(time),
            _ => String::new(),
        };
        let state = match key.state() {
            ApiKeyState::Active => "active",
            ApiKeyState::Disabled => "disabled",
            ApiKeyState::Deleted => "deleted",
            ApiKeyState::Unspecified => panic!("a key has a state"),
        };
        Self {
            name: key.name.clone(),
            account_permissions: key.account_permissions.iter().cloned().collect(),
            team_ids: scope.team_ids.into_iter().collect(),
            team_permissions: scope.permissions.into_iter().collect(),
            expire_micros,
            state: state.into(),
            token_hint: key.token_hint.clone(),
        }
    }

    fn apply(&mut self, event: &Event) {
        for change in &event.changes {
            let single = match change.field.as_str() {
                "name" => &mut self.name,
                "expire_time" => &mut self.expire_micros,
                "state" => &mut self.state,
                "token_hint" => &mut self.token_hint,
                "account_permissions" | "team_scope.team_ids" | "team_scope.permissions" => {
                    let list = match change.field.as_str() {
                        "account_permissions" => &mut self.account_permissions,
                        "team_scope.team_ids" => &mut self.team_ids,
                        _ => &mut self.team_permissions,
                    };
                    assert!(change.added.iter().all(|item| list.insert(item.clone())), "{event:?}");
                    assert!(change.removed.iter().all(|item| list.remove(item)), "{event:?}");
                    continue;
                }
                _ => continue,
            };
            assert_eq!(*single, change.before, "{event:?}");
            single.clone_from(&change.after);
        }
    }
}

fn replayed(events: &[Event]) -> BTreeMap<String, Held> {
    let mut keys: BTreeMap<String, Held> = BTreeMap::new();
    for event in events.iter().filter(|event| event.account_id == ACME) {
        let target = event.target.as_ref().expect("a target");
        if target.r#type == "api_key" {
            keys.entry(target.id.clone()).or_default().apply(event);
        }
        if event.kind() == EventKind::TeamDeleted {
            for id in &event.affected_key_ids {
                let key = keys.get_mut(id).expect("a key of the log");
                assert!(key.team_ids.remove(&target.id), "{event:?}");
                if key.team_ids.is_empty() {
                    key.team_permissions.clear();
                }
            }
        }
    }
    keys
}

fn some_key(dice: &mut Random) -> ApiKey {
    let names = ["billing.manage", "incidents.edit", "settings.view", "secrets.use"];
    let (teams, on_teams) = (dice.some(&TEAMS), dice.some(&["secrets.use", "schedules.edit", "api_keys.manage"]));
    let account = dice.some(&names);
    let name = format!("n{}", dice.below(5));
    let key = if teams.is_empty() || on_teams.is_empty() {
        key(&name, &account)
    } else {
        team_key(&name, &account, &teams, &on_teams)
    };
    if dice.below(3) == 0 { living(key, 600 + dice.below(600) as i64) } else { key }
}

async fn one_change(world: &World, dice: &mut Random, ids: &mut Vec<String>) {
    let owner = world.user("owner");
    let pick = if ids.is_empty() { String::new() } else { ids[dice.below(ids.len())].clone() };
    let fields = ["name", "account_permissions", "team_scope", "expire_time", "team_scope.team_ids"];
    match dice.below(12) {
        0..=2 => {
            // Refused while a team is gone.
            if let Ok(made) = mint(&owner, &some_key(dice)).await {
                ids.push(made.key.key_id);
            }
        }
        3..=6 => {
            let change = ApiKey { expiry: None, ..some_key(dice) };
            let mask = dice.some(&fields);
            let mask = if mask.is_empty() { vec!["name"] } else { mask };
            _ = update(&owner, &pick, &mask, change).await;
        }
        7 => _ = rotate(&owner, &pick).await,
        8 => _ = disable(&owner, &pick).await,
        9 => _ = enable(&owner, &pick).await,
        10 if dice.below(3) == 0 => _ = delete(&owner, &pick).await,
        _ => {
            let team = TEAMS[dice.below(TEAMS.len())];
            _ = world.directory.directory().delete_team(requests::delete_team(ACME, team)).await;
            if dice.below(3) != 0 {
                let again = Team { team_id: team.into(), ..Default::default() };
                let request = requests::upsert_team(ACME, again);
                world.directory.directory().upsert_team(request).await.expect("a team");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_replaying_the_log_reproduces_every_key() {
    for seed in [1, 2, 3] {
        let world = World::start().await;
        let (mut dice, mut ids) = (Random::new(seed), Vec::new());
        for _ in 0..150 {
            one_change(&world, &mut dice, &mut ids).await;
        }
        let listed = list(&world.user("owner")).await.expect("a list");
        let listed: BTreeMap<_, _> = listed.iter().map(|key| (key.key_id.clone(), Held::of(key))).collect();
        assert_eq!(replayed(&events_after(&world, 0).await), listed, "seed {seed}");
        let states: BTreeSet<_> = listed.values().map(|key| key.state.as_str()).collect();
        assert!(listed.len() > 10 && states.len() == 3, "seed {seed} is dull: {states:?}");
    }
}
