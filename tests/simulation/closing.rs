//! The end of a history: everything is healed, everything must answer, and the log must tell the state (V5, V6).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use latchkey::proto::{self, ApiKeyState, Event, EventKind, VerifyEventChainRequest};

use crate::{
    ask,
    op::{Dice, REPLICAS},
    runner::Run,
    support::{Caller, calls, world::ACME},
};

/// For everybody to be back; nobody restarts them.
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
    let mut dice = Dice::new(7);
    let started = Instant::now();
    for slot in 0..REPLICAS {
        while !ask::ask(&run.shared, slot, &mut dice, 0, None).await {
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
        for path in 0..3 {
            ask::ask(&run.shared, slot, &mut dice, path, None).await;
        }
    }
    let channel = run.replicas[0].as_ref().expect("all are there").channel.clone();
    let operator = Caller { channel, token: run.operator.clone(), on_behalf_of: None };
    if let Err(what) = accounts_for_itself(run, &operator).await {
        run.shared.model().violation(what);
    }
}

/// What a key may do, as the log tells it, as it is listed, or as the model has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    permissions: BTreeSet<String>,
    teams: BTreeSet<String>,
    state: String,
}

async fn accounts_for_itself(run: &Run<'_>, operator: &Caller) -> Result<(), String> {
    let chain = operator.events().verify_event_chain(VerifyEventChainRequest::default()).await;
    let chain = chain.map_err(|status| format!("V6: {status:?}"))?.into_inner();
    if !chain.valid {
        return Err(format!("V6: {chain:?}"));
    }
    let request = proto::ListEventsRequest { account_id: ACME.into(), page_size: 1_000, ..Default::default() };
    let events = operator.events().list_events(request).await.map_err(|status| format!("V5: {status:?}"))?;
    let replayed = replay(&events.into_inner().events);
    let request = proto::ListApiKeysRequest {
        account_id: ACME.into(),
        page_size: 1_000,
        show_deleted: true,
        ..Default::default()
    };
    let listed = calls::list(operator, request).await.map_err(|status| format!("V5: {status:?}"))?;
    let listed: BTreeMap<_, _> = listed.api_keys.iter().map(|key| (key.key_id.clone(), told(key))).collect();
    if replayed != listed {
        return Err(format!("V5: the log tells {replayed:?}, the store {listed:?}"));
    }
    let model = run.shared.model();
    if listed.len() > model.keys.len() + run.lost_mints {
        return Err(format!("V5: {} keys were minted, {} are there", model.keys.len(), listed.len()));
    }
    for key in &model.keys {
        let authority = key.authority.latest();
        let state = if key.deleted {
            "deleted"
        } else if authority.active {
            "active"
        } else {
            "disabled"
        };
        let Some(there) = listed.get(&key.id) else { return Err(format!("V5: {} was minted and is gone", key.id)) };
        let same = there.permissions == authority.permissions && there.teams == authority.teams;
        if there.state != state || !(key.deleted || same) {
            return Err(format!("V5: {}: answered {state} {authority:?}, stored {there:?}", key.id));
        }
    }
    Ok(())
}

fn told(key: &proto::ApiKey) -> Told {
    let state = match key.state() {
        ApiKeyState::Active => "active",
        ApiKeyState::Disabled => "disabled",
        _ => "deleted",
    };
    let teams = key.team_scope.iter().flat_map(|scope| scope.team_ids.iter().cloned()).collect();
    Told { permissions: key.account_permissions.iter().cloned().collect(), teams, state: state.into() }
}

fn replay(events: &[Event]) -> BTreeMap<String, Told> {
    let mut keys: BTreeMap<String, Told> = BTreeMap::new();
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
