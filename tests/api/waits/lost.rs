//! Replicas that were lost without a word: waited for as long as they may serve, then evicted.

use latchkey::proto::{BatchUpsertTeamsRequest, Team};

use super::*;
use crate::support::{
    Server,
    calls::{eventually, head},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_lost_replica_that_may_serve_stale_is_waited_for_that_much_longer() {
    let world = World::start().await;
    let (owner, key_id) = (world.user("owner"), any_key(&world).await);
    let lost = Instant::now();
    add_dead_replica(&world, 1_000, 1_500).await;
    let done = delete(&owner, &key_id, How::default()).await.expect("answered").propagation;
    // Lease, staleness, and the margin of one in a hundred.
    assert!(lost.elapsed() >= Duration::from_millis(2_525), "{:?}", lost.elapsed());
    assert_eq!((done.complete, done.pending_replicas, dead_replicas(&world).await), (true, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_in_its_row_how_long_it_may_serve() {
    let flags = |flags: latchkey::settings::Flags| flags.with("lease_ms", "3000").with("stale_max_ms", "7000");
    let server = Server::start_with(flags).await;
    let said = "SELECT lease_ms || ' ' || stale_max_ms AS line FROM replicas";
    assert_eq!(sql::lines(&server.database, said).await, ["3000 7000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_replica_is_evicted_although_no_caller_revokes_anything() {
    let server = Server::start_with(|flags| flags.with("lease_ms", "1000")).await;
    let world = World::on(server).await;
    add_dead_replica(&world, 1_000, 0).await;
    add_dead_replica(&world, 1_000, 0).await;
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    assert_eq!(dead_replicas(&world).await, 3);
    eventually("those that can serve no more are evicted", async || dead_replicas(&world).await == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(dead_replicas(&world).await, 1, "the other may still serve");
    let rows = "SELECT name AS line FROM replicas WHERE name <> 'dead'";
    assert_eq!(sql::lines(&world.server.database, rows).await.len(), 1, "and so may the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_that_waits_for_its_row_holds_up_no_answer() {
    let world = World::start().await;
    let (owner, key_id) = (world.user("owner"), any_key(&world).await);
    add_dead_replica(&world, 1_000, 0).await;
    assert!(!disable(&owner, &key_id, How::within(300)).await.expect("answered in time").propagation.complete);
    let held = async {
        let hold = "BEGIN; SELECT 1 FROM replicas WHERE name = 'dead' FOR UPDATE; SELECT pg_sleep(3); COMMIT";
        sql::run(&world.server.database, hold).await;
    };
    let calls = async {
        // By then the row can be evicted, and is locked.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        for _ in 0..3 {
            let done = disable(&owner, &key_id, How::within(400)).await.expect("answered in time").propagation;
            assert_eq!((done.complete, done.pending_replicas), (false, 1));
        }
    };
    tokio::join!(held, calls);
    assert!(disable(&owner, &key_id, How::default()).await.expect("answered").propagation.complete);
    assert_eq!(dead_replicas(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_a_repeated_delete_or_disable_waits_for_the_current_head() {
    let world = World::start().await;
    let (owner, key_id) = (world.user("owner"), any_key(&world).await);
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    let first = disable(&owner, &key_id, How { skip: true, timeout: None }).await.expect("disabled").propagation;
    any_key(&world).await;
    let again = disable(&owner, &key_id, How::within(400)).await.expect("answered in time").propagation;
    let number = |propagation: &Propagation| propagation.revision.map(|revision| revision.number);
    assert!(!again.complete && number(&again) > number(&first), "{first:?} {again:?}");
    assert_eq!(number(&again), Some(head(&world).await));
    let gone = delete(&owner, &key_id, How { skip: true, timeout: None }).await.expect("deleted").propagation;
    any_key(&world).await;
    let again = delete(&owner, &key_id, How::within(400)).await.expect("answered in time").propagation;
    assert!(!again.complete && number(&again) > number(&gone), "{gone:?} {again:?}");
    assert_eq!(number(&again), Some(head(&world).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_repeats_a_part_waits_for_it_though_the_rest_is_new() {
    let world = World::start().await;
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    let team = |id: &str| Team { team_id: id.into(), display_name: id.into(), ..Default::default() };
    let batch = |teams: &[&str]| BatchUpsertTeamsRequest {
        account_id: ACME.into(),
        teams: teams.iter().map(|id| team(id)).collect(),
        ..Default::default()
    };
    let mut client = world.directory.directory();
    let new = timed!(client, batch_upsert_teams, How::within(500), batch(&["one"])).propagation;
    assert_eq!((new.complete, new.pending_replicas), (true, 0), "it takes nothing away");
    let part = timed!(client, batch_upsert_teams, How::within(500), batch(&["one", "two"])).propagation;
    assert_eq!((part.complete, part.pending_replicas), (false, 1), "the first may have been renamed just now");
}
