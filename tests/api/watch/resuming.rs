//! Where a watch starts, and what belongs to it.

use latchkey::proto::{ListEventsRequest, Revision};
use tonic::Code;

use super::{Watch, at, number, numbers, teams};
use crate::{
    propagation::three,
    support::{Caller, World, calls::*, world::*},
};

async fn listed(caller: &Caller, account: &str) -> Vec<i64> {
    let request = ListEventsRequest { account_id: account.into(), page_size: 1_000, ..Default::default() };
    numbers(&caller.events().list_events(request).await.expect("listed").into_inner().events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_starts_after_the_revision_it_names_or_with_the_first_event() {
    let world = World::start().await;
    let all = listed(&world.auditor, ACME).await;
    let (middle, last) = (all[all.len() / 2], *all.last().expect("some"));
    for after in [None, at(0), Some(Revision { epoch: 0, number: 0 })] {
        let mut watch = Watch::open(&world.auditor, ACME, after).await.expect("open");
        assert_eq!(numbers(&watch.up_to(last).await), all, "{after:?}");
    }
    let mut watch = Watch::open(&world.auditor, ACME, at(middle)).await.expect("open");
    assert_eq!(numbers(&watch.up_to(last).await), all[all.len() / 2 + 1..]);
    // The event that is named may be another account's.
    let head = head(&world).await;
    assert!(head > last);
    let mut watch = Watch::open(&world.auditor, ACME, at(head)).await.expect("open");
    let minted = create(&world.user("owner"), ACME, &key("next", &[])).await.unwrap();
    assert_eq!(watch.event().await.expect("open").target.expect("a target").id, minted.api_key.unwrap().key_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_the_log_does_not_have_starts_no_watch_and_no_list() {
    let world = World::start().await;
    let head = head(&world).await;
    let both = async |after_revision: Revision, code, reason, names: &str| {
        let refused = Watch::open(&world.auditor, ACME, Some(after_revision)).await;
        assert_refused(refused, code, reason, names);
        let request = ListEventsRequest { after_revision: Some(after_revision), ..Default::default() };
        assert_refused(world.auditor.events().list_events(request).await, code, reason, names);
    };
    both(Revision { epoch: 1, number: head + 1_000 }, Code::Unavailable, "REVISION_NOT_REACHED", "reached").await;
    both(Revision { epoch: 2, number: head }, Code::FailedPrecondition, "REVISION_LOST", "history").await;
    for bad in [(1, -1), (-1, 1), (0, 1), (0, head)] {
        let bad = Revision { epoch: bad.0, number: bad.1 };
        both(bad, Code::InvalidArgument, "INVALID_FIELD", "after_revision").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_watcher_hears_of_no_other_account_and_not_of_the_catalogue() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("manager", &["api_keys.manage"])).await.unwrap();
    let watchers = [world.server.caller(&minted.token), world.user("owner"), world.auditor.clone()];
    let mut watches = Vec::new();
    for watcher in &watchers {
        watches.push(Watch::open(watcher, ACME, None).await.expect("open"));
    }
    create(&world.product.for_user(OTHER, "owner"), OTHER, &key("theirs", &[])).await.unwrap();
    change_permission(&world, "heartbeats.ping", |permission| permission.retired = true).await.unwrap();
    create(&world.server.operator, "system", &key("operators", &[])).await.unwrap();
    create(&world.user("owner"), ACME, &key("ours", &[])).await.unwrap();
    let last = head(&world).await;
    let expected = listed(&world.auditor, ACME).await;
    for mut watch in watches {
        let events = watch.up_to(last).await;
        assert!(events.iter().all(|event| event.account_id == ACME));
        assert_eq!(numbers(&events), expected);
    }
    for watcher in &watchers[..2] {
        Watch::open(watcher, OTHER, None).await.map(|_| ()).expect_err("not theirs");
        Watch::open(watcher, "", None).await.map(|_| ()).expect_err("nor everybody's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_goes_over_into_what_is_written_meanwhile_without_a_gap_or_a_repeat() {
    let world = World::start().await;
    teams(&world, OTHER, "backlog", 1_000).await;
    teams(&world, ACME, "backlog", 200).await;
    let owner = world.user("owner");
    let writer = tokio::spawn(async move {
        for n in 0..60 {
            create(&owner, ACME, &key(&format!("k{n}"), &[])).await.unwrap();
        }
    });
    let mut all = Watch::open(&world.auditor, "", None).await.expect("open");
    let mut one = Watch::open(&world.user("admin"), ACME, None).await.expect("open");
    let mut seen = vec![all.event().await.expect("open")];
    while !writer.is_finished() {
        seen.push(all.event().await.expect("open"));
        tokio::task::yield_now().await;
    }
    writer.await.expect("written");
    teams(&world, ACME, "end", 1).await;
    let last = head(&world).await;
    if seen.last().map(number) != Some(last) {
        seen.extend(all.up_to(last).await);
    }
    assert_eq!(numbers(&seen), (1..=last).collect::<Vec<_>>());
    assert_eq!(numbers(&one.up_to(last).await), listed(&world.auditor, ACME).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_one_replica_hears_every_event_of_another_in_order() {
    let (world, more) = three().await;
    let auditor = Caller { channel: more[0].channel.clone(), ..world.auditor.clone() };
    let owner = world.user("owner");
    let first = create(&owner, ACME, &key("first", &[])).await.unwrap();
    let after = first.propagation.and_then(|propagation| propagation.revision);
    let mut watch = Watch::open(&auditor, ACME, after).await.expect("an auditor may watch");
    let second = create(&owner, ACME, &key("second", &[])).await.unwrap().api_key.unwrap();
    disable(&owner, ACME, &second.key_id).await.unwrap();
    for kind in ["api_key.created", "api_key.disabled"] {
        let message = watch.next().await.expect("open");
        assert!(message.head.is_some());
        let event = message.event.expect("an event");
        assert_eq!((event.kind_name.as_str(), event.target.expect("a target").id), (kind, second.key_id.clone()));
    }
}
