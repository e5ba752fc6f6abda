//! The log: gap-free, in commit order, chained.

use std::sync::Arc;

use latchkey::{
    app::ports::{Append, EventFilter, Lane, Locks, Page, Stamp, Store, StoredEvent},
    domain::log::event::{EventKind, GENESIS, chain},
    store::{PostgresStore, log::archive::Archiver},
    verify::primary::{LogEntry, Primary},
};
use tokio::sync::Notify;

use crate::{
    database::{execute, fresh_database},
    fixtures::*,
};

fn team_events(account: &str, count: usize) -> Vec<Append> {
    (0..count)
        .map(|n| {
            let stamp = Stamp::Team(account_id(account), team_id("t1"));
            event(EventKind::TeamUpdated, account, ("team", &format!("t{n}")), vec![stamp])
        })
        .collect()
}

async fn all_events(store: &PostgresStore) -> Vec<StoredEvent> {
    snapshot(store)
        .await
        .events(&EventFilter::default(), &Page { limit: 10_000, after: None }, 10_000)
        .await
        .unwrap()
        .items
}

fn assert_chained(events: &[StoredEvent]) {
    let mut previous = GENESIS;
    let mut time = None;
    for (stored, number) in events.iter().zip(1..) {
        let event = stored.event.as_ref().expect("of this build's format");
        assert_eq!((stored.number, event.revision.number), (number, number), "no gap");
        assert_eq!(stored.hash, chain(&previous, &stored.payload), "event {number}");
        assert!(stored.columns_match, "event {number}");
        assert!(Some(event.time) >= time, "time never decreases");
        (previous, time) = (stored.hash, Some(event.time));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_eight_writers_leave_no_gap_and_a_valid_chain() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 15;
    let db = fresh_database().await;
    for writer in 0..WRITERS {
        put_account(&db.store, &format!("a{writer}"), &["t1"]).await;
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = db.store.clone();
            tokio::spawn(async move {
                let account = format!("a{writer}");
                for round in 0..ROUNDS {
                    let mut tx = begin(&store, &account).await;
                    tx.append(team_events(&account, 1 + round % 3)).await.unwrap();
                    if round % 4 == 3 { tx.rollback().await.unwrap() } else { tx.commit().await.unwrap() }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let events = all_events(&db.store).await;
    let kept: usize = (0..ROUNDS).filter(|round| round % 4 != 3).map(|round| 1 + round % 3).sum();
    assert_eq!(events.len(), WRITERS * (1 + kept));
    assert_chained(&events);
    let (revision, hash) = snapshot(&db.store).await.head_hash().await.unwrap();
    assert_eq!((revision.number, hash), (events.len() as i64, events.last().unwrap().hash));
    let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e.event.as_ref().unwrap().event_id).collect();
    assert_eq!(ids.len(), events.len());
    assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_stamps_its_objects_and_the_last_of_several_counts() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1", "t2"]).await;
    let acme = account_id("acme");
    let mut tx = begin(&db.store, "acme").await;
    tx.put_users(&acme, &[user("u1", "owner", &[], &[]), user("u2", "owner", &[], &[])]).await.unwrap();
    let stamped = |stamps| event(EventKind::TeamUpdated, "acme", ("team", "t"), stamps);
    let revisions = tx
        .append(vec![
            stamped(vec![Stamp::Team(acme.clone(), team_id("t1")), Stamp::Account(acme.clone())]),
            stamped(vec![Stamp::Team(acme.clone(), team_id("t1")), Stamp::User(acme.clone(), user_id("u1"))]),
            stamped(vec![Stamp::Users(acme.clone(), vec![user_id("u2")]), Stamp::Role(acme.clone(), role_id("lead"))]),
        ])
        .await
        .unwrap();
    assert!(tx.append(vec![]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    assert_eq!(revisions.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 3, 4]);
    let mut reader = snapshot(&db.store).await;
    assert_eq!(reader.account(&acme).await.unwrap().unwrap().revision, revisions[0]);
    assert_eq!(reader.team(&acme, &team_id("t1")).await.unwrap().unwrap().revision, revisions[1]);
    assert_eq!(reader.team(&acme, &team_id("t2")).await.unwrap().unwrap().revision.number, 1);
    assert_eq!(reader.user(&acme, &user_id("u1")).await.unwrap().unwrap().revision, revisions[1]);
    assert_eq!(reader.user(&acme, &user_id("u2")).await.unwrap().unwrap().revision, revisions[2]);
    assert_eq!(reader.role(&acme, &role_id("lead")).await.unwrap().unwrap().revision, revisions[2]);
    assert_eq!(reader.role(&acme, &role_id("owner")).await.unwrap().unwrap().revision.number, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_filtered_by_account_kind_and_key() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    put_account(&db.store, "other", &[]).await;
    let key = api_key(1, "acme", grants(&[], &["t1"], &["b"]));
    put_key(&db.store, &key, 1).await;
    put_key(&db.store, &api_key(2, "other", grants(&[], &[], &[])), 2).await;
    let mut tx = begin(&db.store, "acme").await;
    let mut affecting = event(EventKind::TeamDeleted, "acme", ("team", "t1"), vec![]);
    affecting.draft.affected_key_ids = vec![key_id(7), key_id(1)];
    tx.append(vec![affecting]).await.unwrap();
    tx.commit().await.unwrap();

    let mut reader = snapshot(&db.store).await;
    let mut numbers = async |filter: EventFilter, limit, after| {
        let events = reader.events(&filter, &Page { limit, after }, 10_000).await.unwrap().items;
        assert!(events.iter().all(|event| event.columns_match));
        events.iter().map(|event| event.number).collect::<Vec<_>>()
    };
    let all = EventFilter::default;
    assert_eq!(numbers(all(), 9, Some(2)).await, [3, 4, 5]);
    let of_acme = EventFilter { account_id: Some(account_id("acme")), ..all() };
    assert_eq!(numbers(of_acme.clone(), 9, None).await, [1, 3, 5]);
    let of_key = EventFilter { key_id: Some(key_id(1)), ..of_acme };
    assert_eq!(numbers(of_key.clone(), 9, None).await, [3, 5]);
    assert_eq!(numbers(of_key.clone(), 1, None).await, [3]);
    assert_eq!(numbers(of_key.clone(), 1, Some(3)).await, [5]);
    let created = EventFilter { kinds: [EventKind::ApiKeyCreated].into(), ..all() };
    assert_eq!(numbers(created.clone(), 9, None).await, [3, 4]);
    assert_eq!(numbers(EventFilter { kinds: created.kinds, ..of_key }, 9, None).await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_follower_reads_links_and_a_changed_column_shows() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    for _ in 0..3 {
        let mut tx = begin(&db.store, "acme").await;
        tx.append(team_events("acme", 2)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let all = db.store.events_after(0, 100).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(all[0].previous_hash, GENESIS);
    let some = db.store.events_after(2, 3).await.unwrap();
    assert_eq!(some.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!((some[0].previous_hash, some[1].previous_hash), (all[1].hash, all[2].hash));
    assert!(db.store.events_after(7, 3).await.unwrap().is_empty());
    let head = Primary::head(&db.store, &sent()).await.unwrap();
    assert_eq!((head.revision.number, head.hash), (7, all[6].hash));
    assert!(head.database_time > all[6].event.as_ref().unwrap().time);

    execute(&db.url, "UPDATE events SET target_id = 'forged' WHERE number = 3").await;
    let matching: Vec<_> = all_events(&db.store).await.iter().map(|event| event.columns_match).collect();
    assert_eq!(matching, [true, true, false, true, true, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_wakes_a_listener_if_it_notifies() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    let notify = Arc::new(Notify::new());
    let task = db.store.listen(notify.clone());
    let woken = |millis| tokio::time::timeout(std::time::Duration::from_millis(millis), notify.notified());
    woken(5_000).await.expect("the start of listening wakes, for what was missed before");
    for notifies in [false, true] {
        let mut tx = db.store.begin(Lane::Mutations, "test", notifies, &Locks::default()).await.unwrap();
        tx.append(team_events("acme", 1)).await.unwrap();
        assert!(woken(50).await.is_err(), "not before the commit");
        tx.commit().await.unwrap();
        assert_eq!(woken(if notifies { 5_000 } else { 200 }).await.is_ok(), notifies);
    }
    // The connection breaks: it listens again by itself.
    let name = db.url.rsplit_once('/').unwrap().1;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname";
    execute(&db.url, &format!("{kill} = '{name}'")).await;
    woken(5_000).await.expect("listens again, and says so");
    task.abort();
}

/// As if the database's clock had been set back by an hour, or a standby with such a clock had taken over.
#[tokio::test(flavor = "multi_thread")]
async fn v3_time_never_falls_behind_the_log_whatever_the_clock_does() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    execute(&db.url, "UPDATE log_head SET time = clock_timestamp() + interval '1 hour'").await;
    let time = snapshot(&db.store).await.now().await.unwrap();
    let head = Primary::head(&db.store, &sent()).await.unwrap();
    let fill = db.store.fill(&[digest(1, 0)], &sent()).await.unwrap();
    assert_eq!((head.database_time, fill.database_time), (time, time));
    let mut tx = begin(&db.store, "acme").await;
    assert_eq!(tx.now().await.unwrap(), time);
    tx.append(team_events("acme", 1)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(all_events(&db.store).await.last().unwrap().event.as_ref().unwrap().time, time);
}

/// The clock is set back between what a mutation was given and its event: what it ended "now" has ended.
#[tokio::test(flavor = "multi_thread")]
async fn v3_an_event_is_never_of_before_the_time_that_its_mutation_was_given() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &[]).await;
    execute(&db.url, "UPDATE log_head SET time = clock_timestamp() + interval '1 hour'").await;
    let mut tx = begin(&db.store, "acme").await;
    let time = tx.now().await.unwrap();
    execute(&db.url, "UPDATE log_head SET time = clock_timestamp() - interval '1 hour'").await;
    tx.append(team_events("acme", 1)).await.unwrap();
    tx.commit().await.unwrap();
    let event = all_events(&db.store).await.last().unwrap().event.clone().unwrap();
    assert_eq!(event.time, time);
    assert_eq!(Primary::head(&db.store, &sent()).await.unwrap().database_time, time);
}

/// A replica that applied the anchor's event last goes on from it.
#[tokio::test(flavor = "multi_thread")]
async fn v6_the_first_event_after_the_anchor_follows_it() {
    let db = fresh_database().await;
    put_account(&db.store, "acme", &["t1"]).await;
    let mut tx = begin(&db.store, "acme").await;
    tx.append(team_events("acme", 6)).await.unwrap();
    tx.commit().await.unwrap();
    let before = db.store.events_after(3, 10).await.unwrap();
    let mut archiver = Archiver::open(&db.url).await.unwrap();
    let extent = archiver.extent().await.unwrap();
    assert_eq!((extent.anchor.number, extent.head, extent.least_applied), (0, 7, None));
    let through = archiver.at(3).await.unwrap().unwrap();
    archiver.remove(&extent.anchor, &through).await.unwrap();
    // From where it was, it cannot be moved again.
    let further = archiver.at(5).await.unwrap().unwrap();
    assert!(archiver.remove(&extent.anchor, &further).await.is_err());
    assert_eq!(archiver.extent().await.unwrap().anchor, through);
    assert_eq!(all_events(&db.store).await.len(), 4, "what was refused removed nothing");
    let after = db.store.events_after(3, 10).await.unwrap();
    let links = |entries: &[LogEntry]| entries.iter().map(|e| (e.number, e.previous_hash, e.hash)).collect::<Vec<_>>();
    assert_eq!(links(&after), links(&before));
    // Of who was further behind, no client knows whether this is what it followed.
    assert_ne!(db.store.events_after(2, 10).await.unwrap()[0].previous_hash, through.hash);
}
