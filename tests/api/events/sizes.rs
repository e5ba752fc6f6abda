//! Events of any size: a change that one event cannot hold is several, each of which a default watcher takes.

use latchkey::proto::{
    Event, EventKind, ListEventsRequest, Permission, Revision, VerifyEventChainRequest, WatchEventsRequest,
};
use prost::Message;

use crate::support::{World, calls::*};

const EVENT_BYTES_MAX: usize = 1 << 20;

/// The catalogue in force with as many permissions more as there may be, each with the longest name, and each implying
/// all before it.
async fn long_catalogue(world: &World) -> latchkey::proto::Catalogue {
    let mut catalogue = catalogue(world).await;
    let mut names: Vec<String> = Vec::new();
    for n in catalogue.permissions.len()..256 {
        let name = format!("{}.p{n:03}", "long".repeat(14));
        catalogue.permissions.push(Permission { name: name.clone(), implies: names.clone(), ..Default::default() });
        names.push(name);
    }
    catalogue
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_one_event_cannot_hold_is_several_that_each_reader_takes() {
    let world = World::start().await;
    let operator = &world.server.operator;
    let before = head(&world).await;
    let applied = apply(operator, long_catalogue(&world).await).await.expect("the longest catalogue");
    let events = events_to_head(&world, before).await;
    let kinds: Vec<_> = events.iter().map(Event::kind).collect();
    assert!(kinds.len() > 1, "{kinds:?}");
    assert_eq!(kinds[0], EventKind::CatalogueApplied);
    assert!(kinds[1..].iter().all(|kind| *kind == EventKind::ChangeContinued), "{kinds:?}");
    assert!(events.iter().all(|event| event.encoded_len() < EVENT_BYTES_MAX + 1_024 && !event.truncated));
    assert!(events.iter().all(|event| event.target == events[0].target && event.actor == events[0].actor));
    let changed = |event: &Event| event.changes.iter().map(|change| change.added.len()).sum::<usize>();
    assert!(events.iter().map(changed).sum::<usize>() > 200, "together they say all of it");
    // A caller that waits for what the call answered has waited for every part; it is the object's etag, too.
    let last = applied.propagation.expect("a propagation").revision.expect("a revision");
    assert_eq!(last.number, before + i64::try_from(events.len()).unwrap());
    let etag = applied.catalogue.expect("a catalogue").etag;
    assert_eq!(catalogue(&world).await.etag, etag);

    // A client with gRPC's default limit watches them go by.
    let request =
        WatchEventsRequest { after_revision: Some(Revision { epoch: 1, number: before }), ..Default::default() };
    let mut watch = world.auditor.events().watch_events(request).await.expect("a watch").into_inner();
    for event in &events {
        let next = loop {
            let message = watch.message().await.expect("a message").expect("it goes on");
            if let Some(event) = message.event {
                break event;
            }
        };
        assert_eq!(&next, event);
    }
    let report = world.auditor.events().verify_event_chain(VerifyEventChainRequest::default()).await.unwrap();
    assert!(report.into_inner().valid);
}

/// All pages after a number.
async fn events_to_head(world: &World, number: i64) -> Vec<Event> {
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let after_revision = Some(Revision { epoch: 1, number });
        let request = ListEventsRequest { page_size: 1_000, page_token, after_revision, ..Default::default() };
        let page = world.auditor.events().list_events(request).await.expect("a page").into_inner();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}
