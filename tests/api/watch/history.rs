//! What a watcher, a page, a wait and a verification are told after events were lost.

use latchkey::proto::{AwaitPropagationRequest, ListEventsRequest, Revision, VerificationOutcome, VerifyTokenRequest};
use tonic::Code;

use super::{Watch, at, number, numbers};
use crate::support::{World, calls::*, world::*};

/// What a fail-over to a standby that had not received the last events leaves.
async fn lose_events_after(world: &World, head: i64, epoch: i64) {
    world
        .server
        .database
        .execute_as_owner(&format!(
            "BEGIN; DELETE FROM events WHERE number > {head}; \
             UPDATE log_head SET epoch = {epoch}, number = {head}, \
             hash = (SELECT hash FROM events WHERE number = {head}); COMMIT"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_were_lost_end_watches_and_are_no_place_to_go_on_from_once_the_rest_is_accepted() {
    let world = World::start().await;
    let kept = head(&world).await;
    for name in ["lost", "lost too", "lost with them"] {
        create(&world.user("owner"), ACME, &key(name, &[])).await.unwrap();
    }
    let lost = head(&world).await;
    let page = |page_token: &str| ListEventsRequest {
        page_size: 1,
        after_revision: at(kept),
        page_token: page_token.into(),
        ..Default::default()
    };
    let page_token = world.auditor.events().list_events(page("")).await.unwrap().into_inner().next_page_token;
    assert!(!page_token.is_empty());
    let mut open = Watch::open(&world.auditor, ACME, at(lost)).await.expect("open");
    let mut everybodys = Watch::open(&world.auditor, "", at(kept)).await.expect("open");
    everybodys.up_to(lost).await;

    lose_events_after(&world, kept, 1).await;
    for watch in [&mut open, &mut everybodys] {
        let (events, status) = watch.end().await;
        assert_eq!((events, status.code()), (vec![], Code::Unavailable), "{status:?}");
    }
    let running = &world.server.running;
    eventually("out of service", || async { !running.app().verifier().in_service() }).await;
    running.app().accept_history().await.expect("accepted");
    eventually("in service", || async { running.app().verifier().has_lease() }).await;

    for number in [kept + 1, kept + 2, lost] {
        let watch = Watch::open(&world.auditor, "", at(number)).await;
        assert_refused(watch, Code::FailedPrecondition, "REVISION_LOST", "history");
        let request = ListEventsRequest { after_revision: at(number), ..Default::default() };
        let list = world.auditor.events().list_events(request).await;
        assert_refused(list, Code::FailedPrecondition, "REVISION_LOST", "history");
        let request = AwaitPropagationRequest { revision: at(number) };
        let awaited = world.auditor.events().await_propagation(request).await;
        assert_refused(awaited, Code::FailedPrecondition, "REVISION_LOST", "history");
    }
    let list = world.auditor.events().list_events(page(&page_token)).await;
    assert_refused(list, Code::FailedPrecondition, "REVISION_LOST", "history");

    // From what both histories have, all goes on.
    let mut watch = Watch::open(&world.auditor, "", at(kept)).await.expect("open");
    let first = watch.event().await.expect("open");
    assert_eq!((first.revision, first.kind_name.as_str()), (Some(in_second(kept + 1)), "history.accepted"));
    let request = AwaitPropagationRequest { revision: at(kept) };
    let awaited = world.auditor.events().await_propagation(request).await.expect("it is there").into_inner();
    assert!(awaited.propagation.expect("a propagation").complete);
    // Any state of a later epoch is newer than one of an earlier epoch.
    let request = VerifyTokenRequest { token: world.product.token.clone(), requirement: None, min_revision: at(lost) };
    let verified = world.verifier.tokens().verify_token(request).await.expect("an answer").into_inner();
    assert_eq!(verified.verification.expect("a verification").outcome(), VerificationOutcome::Valid);
}

fn in_second(number: i64) -> Revision {
    Revision { epoch: 2, number }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_watch_whose_last_event_was_lost_says_so_rather_than_go_on_from_its_number() {
    let world = World::start().await;
    let kept = head(&world).await;
    create(&world.user("owner"), ACME, &key("lost", &[])).await.unwrap();
    let mut watch = Watch::open(&world.auditor, ACME, at(kept)).await.expect("open");
    watch.up_to(kept + 1).await;
    // Lost and accepted before anybody could see what was between.
    lose_events_after(&world, kept, 2).await;
    let (events, status) = watch.end().await;
    assert_eq!(events, Vec::<i64>::new());
    assert_refused(Err::<(), _>(status), Code::FailedPrecondition, "REVISION_LOST", "history");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_across_epochs_if_nothing_was_lost() {
    let world = World::start().await;
    let start = head(&world).await;
    let mut watch = Watch::open(&world.auditor, "", at(start)).await.expect("open");
    create(&world.user("owner"), ACME, &key("before", &[])).await.unwrap();
    let running = &world.server.running;
    let accepted = running.app().accept_history().await.expect("accepted").after;
    eventually("in service", || async {
        let verifier = running.app().verifier();
        verifier.has_lease() && verifier.applied() >= Some(accepted)
    })
    .await;
    create(&world.user("owner"), ACME, &key("after", &[])).await.unwrap();
    let events = watch.up_to(start + 3).await;
    assert_eq!(numbers(&events), [start + 1, start + 2, start + 3]);
    let epochs: Vec<_> = events.iter().map(|event| event.revision.expect("a revision").epoch).collect();
    assert_eq!(epochs, [1, 2, 2]);
    // From an event of the earlier epoch that the later one has kept.
    let mut watch = Watch::open(&world.auditor, "", at(start + 1)).await.expect("open");
    assert_eq!(number(&watch.event().await.expect("open")), start + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn propagation_is_awaited_of_a_revision_of_the_log_or_of_its_head() {
    let world = World::start().await;
    let head = head(&world).await;
    let wait = async |revision| {
        let response = world.verifier.events().await_propagation(AwaitPropagationRequest { revision }).await;
        response.map(|response| response.into_inner().propagation.expect("a propagation"))
    };
    for revision in [None, at(head)] {
        let done = wait(revision).await.expect("there");
        assert_eq!((done.complete, done.revision), (true, at(head)), "{revision:?}");
    }
    assert!(wait(at(1)).await.expect("there").complete);
    for bad in [(0, head), (1, -1), (-1, head)] {
        let bad = Some(Revision { epoch: bad.0, number: bad.1 });
        assert_refused(wait(bad).await, Code::InvalidArgument, "INVALID_FIELD", "revision");
    }
    assert_refused(wait(at(head + 1)).await, Code::Unavailable, "REVISION_NOT_REACHED", "reached");
    assert_refused(wait(Some(in_second(head))).await, Code::FailedPrecondition, "REVISION_LOST", "history");
}
