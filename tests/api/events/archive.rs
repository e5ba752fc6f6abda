//! V6: the beginning of the log is archived, and the rest verifies from its anchor; so do the files, alone and together.

use std::{path::Path, time::Duration};

use latchkey::proto::{
    AwaitPropagationRequest, BatchUpsertTeamsRequest, ListEventsRequest, Revision, Team, VerifyEventChainRequest,
    VerifyEventChainResponse, WatchEventsRequest, WatchEventsResponse,
};
use tonic::{Code, Status};

use crate::{
    calls::*,
    support::{
        World,
        ground::on,
        process::{Ended, scratch},
        sql,
        world::*,
    },
};

const LIMIT: Duration = Duration::from_secs(20);

fn at(number: i64) -> Option<Revision> {
    Some(Revision { epoch: 1, number })
}

fn run(url: &str, arguments: &[&str]) -> Ended {
    on(url, arguments).run(LIMIT)
}

/// Archives the events before a number, of all but the last five, as the owner.
fn archive(world: &World, before: i64, output: &Path) -> Ended {
    let (before, output) = (before.to_string(), output.to_str().expect("Unicode"));
    let arguments = ["events", "archive", "--before", &before, "--output", output, "--keep-events", "5"];
    run(&world.server.database.owner_url, &arguments)
}

/// Verifies files, with the log's own link of them too.
fn verify_files(world: &World, files: &[&Path]) -> Ended {
    let files = files.iter().map(|path| path.to_str().expect("Unicode"));
    let arguments: Vec<_> = ["events", "verify"].into_iter().chain(files).chain(["--against-database"]).collect();
    run(&world.server.database.app_url, &arguments)
}

async fn verify_from(world: &World, start_number: i64) -> VerifyEventChainResponse {
    let request = VerifyEventChainRequest { account_id: String::new(), start_number };
    world.auditor.events().verify_event_chain(request).await.expect("a report").into_inner()
}

async fn list(world: &World, request: ListEventsRequest) -> Result<Vec<i64>, Status> {
    let page = world.auditor.events().list_events(request).await?.into_inner();
    Ok(page.events.iter().map(|event| event.revision.expect("a revision").number).collect())
}

async fn watch(world: &World, after: Option<Revision>) -> Result<WatchEventsResponse, Status> {
    let request = WatchEventsRequest { account_id: String::new(), after_revision: after };
    let mut watch = world.auditor.events().watch_events(request).await?.into_inner();
    watch.message().await.map(|message| message.expect("no end without a reason"))
}

async fn rows(world: &World) -> String {
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM events WHERE number <= a.number), \
         (SELECT count(*) FROM event_details WHERE number <= a.number), \
         (SELECT count(*) FROM event_affected_keys WHERE number <= a.number)) AS line FROM log_anchor a";
    sql::lines(&world.server.database, counts).await.concat()
}

/// A world with some more events, all of them applied and acknowledged.
async fn long_world() -> (World, i64) {
    let world = World::start().await;
    let owner = world.user("owner");
    for n in 0..12 {
        mint(&owner, &team_key(&format!("k{n}"), &[], &["red"], &["secrets.use"])).await.expect("a key");
    }
    let head = head(&world).await;
    acknowledged(&world, head).await;
    (world, head)
}

async fn acknowledged(world: &World, number: i64) {
    let all = format!("SELECT (min(applied_number) >= {number})::text AS line FROM replicas");
    for _ in 0..500 {
        if sql::lines(&world.server.database, &all).await.concat() == "true" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("event {number} is never acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_what_is_archived_verifies_in_its_file_and_the_rest_from_its_anchor_while_the_server_goes_on() {
    let (world, last) = long_world().await;
    let scratch = scratch();
    let (first, second) = (scratch.path().join("first.jsonl"), scratch.path().join("second.jsonl"));
    let n = last / 2;
    let text = archive(&world, n + 1, &first).success();
    assert!(text.contains(&format!("the events 1 to {n} in")), "{text}");
    assert_eq!(rows(&world).await, "0 0 0", "with everything of theirs");

    for start in [0, 1, n, n + 1] {
        let report = verify_from(&world, start).await;
        assert!(report.valid, "{report:?}");
        assert_eq!((report.verified_after, report.verified_events), (at(n), last - n), "from {start}");
        assert_eq!((report.verified_through, report.next_start_number), (at(last), 0));
    }
    assert_eq!(verify_from(&world, n + 3).await.verified_after, at(n + 2));
    assert!(verify_files(&world, &[&first]).success().contains("with the database"));

    // It is not overwritten, and what is archived is not archived twice.
    assert!(archive(&world, n + 3, &first).failure().contains("exists"));
    assert!(archive(&world, n + 1, &second).success().contains("nothing to archive"));
    assert!(!second.exists());

    // The server goes on: it mints and it revokes.
    let owner = world.user("owner");
    let made = mint(&owner, &key("after", &[])).await.expect("a key");
    delete(&owner, made.id()).await.expect("deleted");
    assert_eq!(verify_from(&world, 0).await.verified_through, at(last + 2));
    acknowledged(&world, last + 2).await;

    // All but the last five, whatever is asked for; the head stays a place to go on from.
    let text = archive(&world, last + 100, &second).success();
    assert!(text.contains("the last 5 events stay") && text.contains(&format!("{} to {}", n + 1, last - 3)), "{text}");
    assert!(verify_files(&world, &[&second, &first]).success().contains(&format!("one chain from 1 to {}", last - 3)));
    let report = verify_from(&world, 0).await;
    assert!(report.valid && report.verified_events == 5, "{report:?}");
    mint(&owner, &key("later", &[])).await.expect("the server goes on");
    let awaited = AwaitPropagationRequest { revision: None };
    let propagation = world.auditor.events().await_propagation(awaited).await.expect("awaited").into_inner();
    assert!(propagation.propagation.expect("it says").complete);
    assert!(world.server.running.app().verifier().in_service());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_who_goes_on_from_before_the_archives_end_learns_where_the_log_begins() {
    let (world, last) = long_world().await;
    let n = last / 2;
    let page = ListEventsRequest { page_size: 1, ..Default::default() };
    let page = world.auditor.events().list_events(page).await.expect("a page").into_inner();
    archive(&world, n + 1, &scratch().path().join("a.jsonl")).success();

    let after = |revision| ListEventsRequest { after_revision: revision, page_size: 1_000, ..Default::default() };
    for revision in [at(1), at(n - 1)] {
        for refused in [
            list(&world, after(revision)).await.map(drop),
            watch(&world, revision).await.map(drop),
            world.auditor.events().await_propagation(AwaitPropagationRequest { revision }).await.map(drop),
        ] {
            refused_with(refused, n);
        }
    }
    let paged = ListEventsRequest { page_size: 1, page_token: page.next_page_token, ..Default::default() };
    refused_with(list(&world, paged).await.map(drop), n);

    // At the anchor, and without a place, the log goes on with the first that is there.
    for revision in [at(n), at(0), None] {
        assert_eq!(list(&world, after(revision)).await.expect("events"), (n + 1..=last).collect::<Vec<_>>());
        let first = watch(&world, revision).await.expect("an event").event.expect("an event");
        assert_eq!(first.revision, at(n + 1));
    }
    // Of another history, it is no place at all.
    let other = Some(Revision { epoch: 2, number: n });
    refused(list(&world, after(other)).await, Code::FailedPrecondition, "REVISION_LOST", "history");
    refused(watch(&world, other).await, Code::FailedPrecondition, "REVISION_LOST", "history");
}

fn refused_with(result: Result<(), Status>, n: i64) {
    use tonic_types::StatusExt as _;
    let status = result.clone().expect_err("it is not there");
    let metadata = status.get_details_error_info().expect("ErrorInfo").metadata;
    assert_eq!(metadata.get("archived_through"), Some(&format!("1.{n}")), "{metadata:?}");
    assert_eq!(metadata.get("first_revision"), Some(&format!("1.{}", n + 1)));
    refused(result, Code::FailedPrecondition, "EVENTS_ARCHIVED", "archive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_whatever_is_changed_in_an_archive_is_found() {
    let (world, last) = long_world().await;
    let scratch = scratch();
    let paths: Vec<_> = (0..3).map(|n| scratch.path().join(format!("{n}.jsonl"))).collect();
    for (path, before) in paths.iter().zip([5, 9, 13]) {
        archive(&world, before, path).success();
    }
    let all: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
    assert!(last > 17, "more than is archived");
    assert!(verify_files(&world, &all).success().contains("one chain from 1 to 12"));
    assert!(verify_files(&world, &[all[2]]).success().contains("taken as given"));
    assert!(verify_files(&world, &[all[0], all[2]]).failure().contains("5 to 8 are in none"));
    assert!(verify_files(&world, &all[..2]).failure().contains("archived up to event 12"));

    let whole = std::fs::read_to_string(all[1]).expect("read");
    let lines: Vec<&str> = whole.lines().collect();
    let other = std::fs::read_to_string(all[0]).expect("read");
    let payload = |line: &str| line.split("\"payload\":\"").nth(1).expect("a payload").chars().nth(30).expect("long");
    let swapped = |a: char| if a == 'A' { 'B' } else { 'A' };
    let at_30 = lines[2].find("\"payload\":\"").expect("a payload") + 11 + 30;
    let changed = format!("{}{}{}", &lines[2][..at_30], swapped(payload(lines[2])), &lines[2][at_30 + 1..]);
    let with = |line: usize, text: &str| {
        let mut lines = lines.clone();
        lines[line] = text;
        lines.join("\n")
    };
    let renumbered = lines[2].replacen("\"number\":6", "\"number\":7", 1);
    for (tampered, text) in [
        (with(2, &changed), "line 3: event 6"),
        (with(2, &renumbered), "event 6"),
        (with(2, "{}"), "line 3 cannot be read"),
        ([&lines[..2], &lines[3..]].concat().join("\n"), "event 6: the event is missing"),
        (lines[..4].join("\n"), "event 8 is missing"),
        ([&lines[..], &lines[4..]].concat().join("\n"), "line 6"),
        (other.clone(), "5 to 8 are in none"),
        (lines[1..].join("\n"), "cannot be read"),
        (String::new(), "not an archive of events"),
    ] {
        std::fs::write(all[1], &tampered).expect("written");
        let failed = verify_files(&world, &all).failure();
        assert!(failed.contains(text), "{text} is not in {failed}");
    }
    std::fs::write(all[1], &whole).expect("written");
    verify_files(&world, &all).success();

    // A whole chain of another log joins neither its neighbours nor the log.
    let (stranger, _) = long_world().await;
    let foreign = scratch.path().join("foreign.jsonl");
    archive(&stranger, 13, &foreign).success();
    verify_files(&stranger, &[&foreign]).success();
    let failed = verify_files(&world, &[&foreign]).failure();
    assert!(failed.contains("the database: event 12: the hash differs from that in"), "{failed}");
    let pair = [all[0], &foreign].map(|path| path.to_str().expect("Unicode"));
    let failed = run(&world.server.database.app_url, &["events", "verify", pair[0], pair[1]]).failure();
    assert!(failed.contains("event 4: the hash differs from that in"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_only_the_owner_archives_and_nothing_that_a_replica_needs() {
    let (world, last) = long_world().await;
    let scratch = scratch();
    let output = scratch.path().join("a.jsonl");
    let path = output.to_str().expect("Unicode");
    let database = &world.server.database;
    let before = ["events", "archive", "--before", "5", "--output", path, "--keep-events", "5"];
    let refused = run(&database.app_url, &before).failure();
    assert!(refused.contains("latchkey_app") && refused.contains("owner"), "{refused}");
    // By default the last thousand stay, and nothing here is a day old.
    let text = run(&database.owner_url, &before[..6]).success();
    assert!(text.contains("the last 1000 events stay") && text.contains("nothing to archive"), "{text}");
    let old = ["events", "archive", "--older-than-days", "1", "--output", path, "--keep-events", "5"];
    assert!(run(&database.owner_url, &old).success().contains("nothing to archive"));
    run(&database.owner_url, &["events", "archive", "--output", path]).failure();
    assert!(
        run(&database.owner_url, &[&before[..6], &["--keep-events", "0"]].concat()).failure().contains("keep-events")
    );

    // A replica that is behind keeps what it has not applied, and the last event that it has.
    let behind = "INSERT INTO replicas (incarnation, applied_epoch, applied_number, lease_ms, stale_max_ms, pepper_ids, name) \
                  VALUES (gen_random_uuid(), 1, 4, 86400000, 0, ARRAY['test'], 'behind')";
    sql::run(database, behind).await;
    let text = archive(&world, last, &output).success();
    assert!(text.contains("no more than event 4") && text.contains("the events 1 to 3 in"), "{text}");
    sql::run(database, "DELETE FROM replicas WHERE name = 'behind'").await;

    // An event that was changed is not archived, and nothing is left behind.
    sql::run(database, "UPDATE events SET payload = payload || ' ' WHERE number = 6").await;
    let output = scratch.path().join("b.jsonl");
    assert!(archive(&world, 10, &output).failure().contains("event 6"));
    assert!(!output.exists());
    let anchor = sql::lines(database, "SELECT number::text AS line FROM log_anchor").await.concat();
    assert_eq!(anchor, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_no_walk_of_the_chain_takes_what_is_archived_meanwhile_for_missing() {
    let world = World::start().await;
    for round in 0..6 {
        let team = |n| Team { team_id: format!("t{n}"), display_name: format!("round {round}"), ..Default::default() };
        let teams = (0..150).map(team).collect();
        let request = BatchUpsertTeamsRequest { account_id: ACME.into(), teams, ..Default::default() };
        world.directory.directory().batch_upsert_teams(request).await.expect("teams");
    }
    let last = head(&world).await;
    acknowledged(&world, last).await;
    let url = world.server.database.owner_url.clone();
    let archiving = tokio::task::spawn_blocking(move || {
        let scratch = scratch();
        for before in (100..last).step_by(50) {
            let (output, before) = (scratch.path().join(before.to_string()), before.to_string());
            let output = output.to_str().expect("Unicode");
            let arguments = ["events", "archive", "--before", &before, "--output", output, "--keep-events", "5"];
            run(&url, &arguments).success();
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    while !archiving.is_finished() {
        let report = verify_from(&world, 0).await;
        assert!(report.valid, "{report:?}");
        assert_eq!(report.verified_through, at(last));
        seen.insert(report.verified_after.expect("a revision").number);
    }
    archiving.await.expect("archived");
    assert!(seen.len() > 1, "{seen:?}");
}
