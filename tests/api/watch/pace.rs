//! Heartbeats, and consumers that do not keep up.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::{Watch, at, narrow, number, teams};
use crate::support::{World, calls::*, world::*};

/// What a watcher is promised to hear something within.
const PROMISED: Duration = Duration::from_secs(10);

/// Waits for a heartbeat, and the head it carries.
async fn heartbeat(watch: &mut Watch) -> i64 {
    let opened = Instant::now();
    let message = watch.next().await.expect("open");
    assert!(opened.elapsed() < PROMISED, "{:?}", opened.elapsed());
    assert_eq!(message.event, None);
    message.head.expect("a head").number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_accounts_watcher_hears_a_heartbeat_with_the_head_on_an_idle_log_and_beside_a_busy_account() {
    let idle = async {
        let world = World::start().await;
        let head = head(&world).await;
        let mut watch = Watch::open(&world.auditor, ACME, at(head)).await.expect("open");
        assert_eq!(heartbeat(&mut watch).await, head);
    };
    let busy = async {
        let world = World::start().await;
        let start = head(&world).await;
        let mut watch = Watch::open(&world.user("owner"), ACME, at(start)).await.expect("open");
        let others = world.product.for_user(OTHER, "owner");
        let writing = async {
            loop {
                create(&others, OTHER, &key("theirs", &[])).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let head = tokio::select! {
            head = heartbeat(&mut watch) => head,
            () = writing => unreachable!(),
        };
        assert!(head > start, "{head}");
        // All up to a heartbeat's head was sent: it is a place to resume after.
        let minted = create(&world.user("owner"), ACME, &key("ours", &[])).await.unwrap();
        let mut resumed = Watch::open(&world.user("owner"), ACME, at(head)).await.expect("open");
        let event = resumed.event().await.expect("open");
        assert_eq!(event.target.expect("a target").id, minted.api_key.unwrap().key_id);
    };
    tokio::join!(idle, busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_does_not_keep_up_is_cut_off_and_resumes_with_each_event_once() {
    let world = World::start().await;
    teams(&world, ACME, "many", 1_000).await;
    let last = head(&world).await;
    let slow = narrow(&world, &world.auditor).await;
    let mut watch = Watch::open(&slow, "", None).await.expect("open");
    let mut seen = vec![number(&watch.event().await.expect("open"))];
    tokio::time::sleep(PROMISED + Duration::from_secs(1)).await;
    let (more, status) = watch.end().await;
    assert_refused(Err::<(), _>(status), Code::ResourceExhausted, "OVERLOADED", "resume after the last event");
    seen.extend(more);
    let resume = *seen.last().expect("some");
    assert!(resume < last, "it was not cut off before {last}");
    let mut watch = Watch::open(&slow, "", at(resume)).await.expect("open");
    seen.extend(watch.up_to(last).await.iter().map(number));
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
}
