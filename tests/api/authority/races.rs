//! M9: authority is judged at the mutation's own revision. Managers mutate while their authority comes
//! and goes; the log then tells, event by event, whether each was allowed at its place.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use latchkey::proto::{Event, EventKind, SuspendAccountRequest, UserState};

use super::*;

/// Mutations by `count` tasks of the same caller until the stop flag is set; how many succeeded.
fn mutate_on(
    caller: &Caller,
    count: usize,
    key: &ApiKey,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<usize>> {
    let worker = |_| {
        let (caller, key, stop) = (caller.clone(), key.clone(), stop.clone());
        tokio::spawn(async move {
            let mut succeeded = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok(made) = mint(&caller, &key).await else { continue };
                succeeded += 1;
                let disabled = disable(&caller, made.id()).await.is_ok();
                // Enabling what was not disabled succeeds too, without an event (K6).
                let enabled = disabled && enable(&caller, made.id()).await.is_ok();
                let renamed = rename(&caller, made.id()).await.is_ok();
                let rotated = rotate(&caller, made.id()).await.is_ok();
                succeeded += [disabled, enabled, renamed, rotated].into_iter().filter(|ok| *ok).count();
            }
            succeeded
        })
    };
    (0..count).map(worker).collect()
}

async fn ended(stop: &AtomicBool, workers: Vec<tokio::task::JoinHandle<usize>>) -> usize {
    stop.store(true, Ordering::Relaxed);
    let mut succeeded = 0;
    for worker in workers {
        succeeded += worker.await.expect("no worker panics");
    }
    succeeded
}

/// Walks the log: every event of a key by the actor stands where the actor was allowed to make it.
fn count_allowed(
    events: &[Event],
    is_actor: impl Fn(&Event) -> bool,
    toggles: impl Fn(&Event) -> Option<bool>,
) -> usize {
    let mut allowed = true;
    let mut counted = 0;
    for event in events {
        if let Some(now) = toggles(event) {
            allowed = now;
        } else if event.target.as_ref().is_some_and(|target| target.r#type == "api_key") && is_actor(event) {
            assert!(allowed, "made without authority: {event:?}");
            counted += 1;
        }
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_a_user_that_is_demoted_meanwhile_confers_nothing_afterwards() {
    let world = World::start().await;
    let before = head(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let workers = mutate_on(&world.user("admin"), 6, &key("k", &["billing.manage"]), &stop);
    for _ in 0..6 {
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        world.make_user(ACME, "admin", "standard", &[], UserState::Active).await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        world.make_user(ACME, "admin", "admin", &[], UserState::Active).await;
    }
    let succeeded = ended(&stop, workers).await;
    let by_admin = |event: &Event| event.actor.as_ref().is_some_and(|actor| actor.user_id == "admin");
    let demoted =
        |event: &Event| (event.kind() == EventKind::UserUpdated).then(|| change(event, "base_role_id").1 == "admin");
    let counted = count_allowed(&events_after(&world, before).await, by_admin, demoted);
    assert_eq!(counted, succeeded, "each success is an event and each event a success");
    assert!(counted > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_a_manager_key_that_is_narrowed_meanwhile_confers_nothing_afterwards() {
    let world = World::start().await;
    let held = ["api_keys.manage", "billing.manage"];
    let manager = owned(&world, &key("m", &held)).await;
    let before = head(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let caller = world.server.caller(&manager.token);
    let workers = mutate_on(&caller, 6, &key("k", &["billing.manage"]), &stop);
    let (owner, mask) = (world.user("owner"), &["account_permissions"]);
    for _ in 0..6 {
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        update(&owner, manager.id(), mask, key("", &["api_keys.manage"])).await.expect("less");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        update(&owner, manager.id(), mask, key("", &held)).await.expect("more");
    }
    let succeeded = ended(&stop, workers).await;
    let of_manager = |event: &Event| event.target.as_ref().is_some_and(|target| target.id == manager.id());
    let by_manager = |event: &Event| event.actor.as_ref().is_some_and(|actor| actor.key_id == manager.id());
    // Without `billing.manage` it may still rename and disable: those grant nothing (M7).
    let grants = |event: &Event| {
        by_manager(event) && !matches!(event.kind(), EventKind::ApiKeyUpdated | EventKind::ApiKeyDisabled)
    };
    let narrowed = |event: &Event| of_manager(event).then(|| !change(event, "account_permissions").2.is_empty());
    let events = events_after(&world, before).await;
    assert!(count_allowed(&events, grants, narrowed) > 0);
    assert_eq!(events.iter().filter(|event| by_manager(event)).count(), succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_after_a_suspension_nothing_more_is_changed() {
    let world = World::start().await;
    let manager = owned(&world, &key("m", &["api_keys.manage"])).await;
    let before = head(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = mutate_on(&world.server.caller(&manager.token), 3, &key("k", &[]), &stop);
    workers.extend(mutate_on(&world.user("admin"), 3, &key("k", &[]), &stop));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let request = SuspendAccountRequest { account_id: ACME.into(), ..Default::default() };
    let suspended = world.directory.directory().suspend_account(request).await.expect("suspended").into_inner();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let succeeded = ended(&stop, workers).await;
    let events = events_after(&world, before).await;
    let last = events.last().expect("the suspension");
    assert_eq!(last.kind(), EventKind::AccountSuspended);
    assert_eq!(last.revision, suspended.propagation.expect("how far").revision);
    assert_eq!(events.len() - 1, succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_a_team_that_is_deleted_meanwhile_is_on_no_key_afterwards() {
    let world = World::start().await;
    let before = head(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let shared = team_key("k", &[], &["red", "green"], &["schedules.edit"]);
    let workers = mutate_on(&world.user("red_green_manager"), 6, &shared, &stop);
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    let request =
        latchkey::proto::DeleteTeamRequest { account_id: ACME.into(), team_id: "red".into(), ..Default::default() };
    world.directory.directory().delete_team(request).await.expect("deleted");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    ended(&stop, workers).await;
    let events = events_after(&world, before).await;
    let deletion = events.iter().position(|event| event.kind() == EventKind::TeamDeleted).expect("the deletion");
    let created = |event: &&Event| event.kind() == EventKind::ApiKeyCreated;
    let id = |event: &Event| event.target.clone().expect("a target").id;
    let mut earlier: Vec<_> = events[..deletion].iter().filter(created).map(id).collect();
    earlier.sort();
    let mut affected = events[deletion].affected_key_ids.clone();
    affected.sort();
    assert_eq!(affected, earlier, "each key of the team is in the event");
    assert!(!earlier.is_empty());
    assert_eq!(events[deletion..].iter().filter(created).count(), 0, "red is no longer theirs to name");
    for key in list(&world.user("owner")).await.expect("a list") {
        assert_eq!(key.team_scope.expect("green is left").team_ids, strings(&["green"]));
    }
}
