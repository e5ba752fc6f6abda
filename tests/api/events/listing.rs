//! ListEvents: filters, pages, and who may read.

use latchkey::proto::{
    DeleteTeamRequest, EventKind, ListEventsRequest, ListEventsResponse, Revision, VerifyEventChainRequest,
};
use tonic::{Code, Status};

use crate::{
    calls::*,
    support::{Caller, World, world::*},
};

async fn events(caller: &Caller, request: ListEventsRequest) -> Result<ListEventsResponse, Status> {
    Ok(caller.events().list_events(request).await?.into_inner())
}

fn of(account: &str) -> ListEventsRequest {
    ListEventsRequest { account_id: account.into(), page_size: 1_000, ..Default::default() }
}

fn numbers(page: &ListEventsResponse) -> Vec<i64> {
    page.events.iter().map(|event| event.revision.expect("a revision").number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_filtered_by_account_kind_and_key() {
    let world = World::start().await;
    let owner = world.user("owner");
    let one = mint(&owner, &team_key("one", &[], &["blue"], &["secrets.use"])).await.expect("a key");
    let two = mint(&owner, &key("two", &[])).await.expect("a key");
    disable(&owner, one.id()).await.expect("off");
    mint_in(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.expect("a key");
    let request = DeleteTeamRequest { account_id: ACME.into(), team_id: "blue".into(), ..Default::default() };
    world.directory.directory().delete_team(request).await.expect("deleted");

    let all = events(&world.auditor, ListEventsRequest { page_size: 1_000, ..Default::default() }).await.expect("all");
    assert_eq!(numbers(&all), (1..=all.head.expect("a head").number).collect::<Vec<_>>());
    for account in [ACME, OTHER, "system"] {
        let found = events(&world.auditor, of(account)).await.expect("a page");
        let expected: Vec<_> = all.events.iter().filter(|event| event.account_id == account).cloned().collect();
        assert!(!expected.is_empty());
        assert_eq!(found.events, expected);
        assert_eq!(found.head, all.head);
    }
    let kinds = vec![EventKind::ApiKeyCreated.into(), EventKind::ApiKeyDisabled.into()];
    let found = events(&world.auditor, ListEventsRequest { kinds, ..of(ACME) }).await.expect("a page");
    let found: Vec<_> = found.events.iter().map(|event| event.kind()).collect();
    assert_eq!(found, [EventKind::ApiKeyCreated, EventKind::ApiKeyCreated, EventKind::ApiKeyDisabled]);
    // A key's own events, and those that list it.
    let found = events(&owner, ListEventsRequest { key_id: one.id().into(), ..of(ACME) }).await.expect("a page");
    let found: Vec<_> = found.events.iter().map(|event| event.kind()).collect();
    assert_eq!(found, [EventKind::ApiKeyCreated, EventKind::ApiKeyDisabled, EventKind::TeamDeleted]);
    let found = events(&owner, ListEventsRequest { key_id: two.id().into(), ..of(ACME) }).await.expect("a page");
    assert_eq!(found.events.len(), 1);
    let elsewhere = ListEventsRequest { key_id: two.id().into(), ..of(OTHER) };
    assert!(events(&world.auditor, elsewhere).await.expect("a page").events.is_empty());
    for kind in [0, -1, 999] {
        bad_field(events(&world.auditor, ListEventsRequest { kinds: vec![1, kind], ..of("") }).await, "kinds[1]");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_page_in_order_and_start_after_a_revision() {
    let world = World::start().await;
    let all = numbers(&events(&world.auditor, of(ACME)).await.expect("a page"));
    let start = all[2];
    let request =
        ListEventsRequest { page_size: 2, after_revision: Some(Revision { epoch: 1, number: start }), ..of(ACME) };
    let (mut paged, mut token, mut kept) = (Vec::new(), String::new(), String::new());
    loop {
        let page =
            events(&world.auditor, ListEventsRequest { page_token: token, ..request.clone() }).await.expect("a page");
        assert!(page.events.len() <= 2);
        paged.extend(numbers(&page));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        kept = token.clone();
    }
    assert_eq!(paged, all[3..]);
    let with =
        |account: &str| ListEventsRequest { page_token: kept.clone(), account_id: account.into(), ..request.clone() };
    events(&world.auditor, with(ACME)).await.expect("its own list");
    bad_field(events(&world.auditor, with(OTHER)).await, "page_token");
    bad_field(events(&world.auditor, ListEventsRequest { page_size: -1, ..of(ACME) }).await, "page_size");
    let negative = Some(Revision { epoch: 1, number: -1 });
    bad_field(events(&world.auditor, ListEventsRequest { after_revision: negative, ..of("") }).await, "after_revision");
    let beyond = Some(Revision { epoch: 1, number: i64::MAX });
    let beyond = events(&world.auditor, ListEventsRequest { after_revision: beyond, ..of("") }).await;
    assert_refused(beyond, Code::Unavailable, "REVISION_NOT_REACHED", "revision");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_account_level_managers_read_its_own_events_and_no_other() {
    let world = World::start().await;
    let owner = world.user("owner");
    let manager = mint(&owner, &key("m", &["api_keys.manage"])).await.expect("a key");
    let team_manager = mint(&owner, &team_key("m", &[], &["red"], &["api_keys.manage"])).await.expect("a key");
    let chain = |account: &str| VerifyEventChainRequest { account_id: account.into(), start_number: 0 };
    for reader in [&owner, &world.user("admin"), &world.server.caller(&manager.token), &world.auditor] {
        let found = events(reader, of(ACME)).await.expect("its own account's");
        assert!(found.events.iter().all(|event| event.account_id == ACME));
        assert!(reader.events().verify_event_chain(chain(ACME)).await.expect("the chain").into_inner().valid);
    }
    for reader in [&owner, &world.server.caller(&manager.token)] {
        not_found(events(reader, of(OTHER)).await);
        not_found(events(reader, of("system")).await);
        not_found(reader.events().verify_event_chain(chain(OTHER)).await);
    }
    denied(events(&world.server.caller(&manager.token), of("")).await, "system.events");
    bad_metadata(events(&owner, of("")).await, "latchkey-on-behalf-of");
    for stranger in [&world.user("red_manager"), &world.user("standard"), &world.server.caller(&team_manager.token)] {
        denied(events(stranger, of(ACME)).await, "api_keys.manage");
        denied(stranger.events().verify_event_chain(chain(ACME)).await, "api_keys.manage");
    }
    not_found(events(&world.verifier, of(ACME)).await);
    denied(events(&world.verifier, of("")).await, "system.events");
}
