//! The end of a history: everything is healed, everything must answer, and the log must tell the state (V5, V6).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use latchkey::proto::{self, ApiKeyState, Event, EventKind, VerifyEventChainRequest};
use tonic::Status;

use crate::{
    ask::{self, Ask, Path},
    op::REPLICAS,
    runner::Run,
    support::{
        Caller,
        calls::{self, requests},
        random::Random,
        world::ACME,
    },
};

/// For everybody to be back; no operator restarts them.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

pub async fn close(run: &mut Run<'_>) {
    for slot in 0..REPLICAS {
        match &mut run.replicas[slot] {
            Some(replica) => {
                replica.proxy.heal();
                replica.carry_on();
            }
            None => run.join(slot).await,
        }
    }
    let mut dice = Random::new(7);
    let started = Instant::now();
    for slot in 0..REPLICAS {
        while !ask::ask(&run.shared, slot, &mut dice, Ask::healed(Path::Batch, false)).await {
            if started.elapsed() > RECOVERY_MAX {
                run.shared.model().violation(format!("replica {slot} does not come back"));
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let murky: Vec<_> = {
        let model = run.shared.model();
        (0..model.keys.len()).filter(|key| model.keys[*key].murky).collect()
    };
    for key in murky {
        let mut tries = 0;
        while !run.delete(tries, key).await {
            tries += 1;
            if tries > 10 {
                return run.shared.model().violation(format!("key {key} cannot be deleted"));
            }
        }
    }
    let mut tries = 0;
    while !run.await_propagation(tries).await {
        tries += 1;
        if tries > 10 {
            return run.shared.model().violation("nothing propagates any more".into());
        }
    }
    for slot in 0..REPLICAS {
        for path in [Path::Batch, Path::Stream, Path::Single] {
            if !ask::ask(&run.shared, slot, &mut dice, Ask::healed(path, true)).await {
                run.shared.model().violation(format!("healed: replica {slot} does not answer by {path:?}"));
            }
        }
    }
    let channel = run.replicas[0].as_ref().expect("all are there").channel.clone();
    let operator = Caller { channel, token: run.operator.clone(), on_behalf_of: None };
    match accounts(run, &operator).await {
        Ok(()) => {}
        Err(Unaccounted::Wrong(what)) => run.shared.model().violation(what),
        Err(Unaccounted::Unanswered(status)) => run.shared.model().violation(format!("healed: {status:?}")),
    }
}

/// What a key may do, as the log tells it, as it is listed, or as the model has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    permissions: BTreeSet<String>,
    teams: BTreeSet<String>,
    state: String,
}

/// Why the log and the store could not be found to agree.
pub enum Unaccounted {
    Wrong(String),
    /// Nobody answered; that is no violation while something is broken.
    Unanswered(Status),
}

impl From<Status> for Unaccounted {
    fn from(status: Status) -> Self {
        Self::Unanswered(status)
    }
}

/// The chain verifies (V6); the log, replayed, is what is stored, and so is what was answered (V5).
pub async fn accounts(run: &Run<'_>, operator: &Caller) -> Result<(), Unaccounted> {
    let chain = operator.events().verify_event_chain(VerifyEventChainRequest::default()).await?.into_inner();
    if !chain.valid {
        return Err(Unaccounted::Wrong(format!("V6: {chain:?}")));
    }
    let request = proto::ListEventsRequest { account_id: ACME.into(), ..requests::list_events(0) };
    let replayed = replay(&operator.events().list_events(request).await?.into_inner().events);
    let listed = calls::list(operator, requests::list_keys(ACME)).await?;
    let listed = listed.api_keys.iter().map(|key| (key.key_id.clone(), held(key))).collect();
    compare(run, &replayed, &listed).map_err(Unaccounted::Wrong)
}

/// What may change at any time, by a call that no client knows the outcome of, is left out.
fn compare(run: &Run<'_>, replayed: &BTreeMap<String, Held>, listed: &BTreeMap<String, Held>) -> Result<(), String> {
    let model = run.shared.model();
    if listed.len() > model.keys.len() + run.lost_mints {
        return Err(format!("V5: {} keys were minted, {} are there", model.keys.len(), listed.len()));
    }
    let strict =
        |held: &Held| Held { teams: held.teams.difference(&model.loose_teams).cloned().collect(), ..held.clone() };
    for key in model.keys.iter().filter(|key| !key.murky) {
        let Some(there) = listed.get(&key.id) else { return Err(format!("V5: {} was minted and is gone", key.id)) };
        let Some(logged) = replayed.get(&key.id) else { return Err(format!("V5: {} is not in the log", key.id)) };
        let (there, logged) = (strict(there), strict(logged));
        if there != logged {
            return Err(format!("V5: {}: the log tells {logged:?}, the store {there:?}", key.id));
        }
        let authority = key.authority.latest();
        let state = match (key.deleted, authority.active) {
            (true, _) => "deleted",
            (false, true) => "active",
            (false, false) => "disabled",
        };
        let teams = authority.teams.difference(&model.loose_teams).cloned().collect();
        let answered = Held { permissions: authority.permissions.clone(), teams, state: state.into() };
        if there.state != state || !(key.deleted || there == answered) {
            return Err(format!("V5: {}: answered {answered:?}, stored {there:?}", key.id));
        }
    }
    Ok(())
}

fn held(key: &proto::ApiKey) -> Held {
    let state = match key.state() {
        ApiKeyState::Active => "active",
        ApiKeyState::Disabled => "disabled",
        _ => "deleted",
    };
    let teams = key.team_scope.iter().flat_map(|scope| scope.team_ids.iter().cloned()).collect();
    Held { permissions: key.account_permissions.iter().cloned().collect(), teams, state: state.into() }
}

fn replay(events: &[Event]) -> BTreeMap<String, Held> {
    let mut keys: BTreeMap<String, Held> = BTreeMap::new();
    for event in events {
        let Some(target) = &event.target else { continue };
        if target.r#type == "api_key" {
            let key = keys.entry(target.id.clone()).or_default();
            for change in &event.changes {
                let list = match change.field.as_str() {
                    "account_permissions" => &mut key.permissions,
                    "team_scope.team_ids" => &mut key.teams,
                    "state" => {
                        key.state.clone_from(&change.after);
                        continue;
                    }
                    _ => continue,
                };
                list.extend(change.added.iter().cloned());
                change.removed.iter().for_each(|item| _ = list.remove(item));
            }
        }
        if event.kind() == EventKind::TeamDeleted {
            for id in &event.affected_key_ids {
                keys.entry(id.clone()).or_default().teams.remove(&target.id);
            }
        }
    }
    keys
}
