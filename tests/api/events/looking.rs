//! ListEvents and VerifyEventChain do a bounded amount of work a call, and go on where they ended.

use latchkey::{
    domain::id::KeyId,
    proto::{DeleteTeamRequest, EventKind, ListEventsRequest, VerifyEventChainRequest},
};

use crate::{
    calls::*,
    support::{Caller, Server, World, database::postgres, world::*},
};

const ROWS_MAX: usize = 100;

/// A world with a long log: a busy key in `acme`, then `blue` deleted from it, then the same again.
async fn world() -> (World, String) {
    let bounded = |flags: latchkey::settings::Flags| {
        flags.with("list_scan_rows_max", ROWS_MAX.to_string()).with("chain_events_max", "100")
    };
    let world = World::on(Server::start_with(bounded).await).await;
    let owner = world.user("owner");
    let busy = mint(&owner, &team_key("busy", &[], &["blue", "red"], &["secrets.use"])).await.expect("a key");
    for round in 0..2 {
        for _ in 0..75 {
            disable(&owner, busy.id()).await.expect("off");
            enable(&owner, busy.id()).await.expect("on");
        }
        if round == 0 {
            let request = DeleteTeamRequest { account_id: ACME.into(), team_id: "blue".into(), ..Default::default() };
            world.directory.directory().delete_team(request).await.expect("deleted");
        }
    }
    let id = busy.id().to_owned();
    (world, id)
}

/// The numbers and kinds of all pages, and how many pages had nothing.
async fn walk(caller: &Caller, request: &ListEventsRequest) -> (Vec<(i64, EventKind)>, usize) {
    let (mut found, mut empty, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListEventsRequest { page_token, ..request.clone() };
        let page = caller.events().list_events(request).await.expect("a page").into_inner();
        found.extend(page.events.iter().map(|event| (event.revision.expect("a revision").number, event.kind())));
        if page.next_page_token.is_empty() {
            return (found, empty);
        }
        empty += usize::from(page.events.is_empty());
        page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rare_events_are_found_in_pages_that_look_at_a_bounded_number_of_events() {
    let (world, busy) = world().await;
    let everything = ListEventsRequest { page_size: 1_000, ..Default::default() };
    let (all, _) = walk(&world.auditor, &everything).await;
    assert!(all.len() > 3 * ROWS_MAX);
    let kinds = [EventKind::TeamDeleted, EventKind::AccountDeleted, EventKind::ApiKeyEnabled];
    for account in ["", ACME] {
        for key in ["", &busy] {
            for kind in kinds {
                for page_size in [1, 1_000] {
                    let request = ListEventsRequest {
                        account_id: account.into(),
                        key_id: key.into(),
                        kinds: vec![kind.into()],
                        page_size,
                        ..Default::default()
                    };
                    let (found, empty) = walk(&world.auditor, &request).await;
                    let expected: Vec<_> = all.iter().copied().filter(|(_, of)| *of == kind).collect();
                    assert_eq!(found, expected, "{request:?}");
                    assert!(kind != EventKind::AccountDeleted || empty >= 2, "{empty} empty pages: {request:?}");
                }
            }
        }
    }
    // Without kinds, every page is full, and a key's events are its own and those that affect it, in order.
    let request =
        ListEventsRequest { account_id: ACME.into(), key_id: busy.clone(), page_size: 7, ..Default::default() };
    let (found, empty) = walk(&world.user("owner"), &request).await;
    assert_eq!((found.len(), empty), (1 + 300 + 1, 0));
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, none twice");
    assert!(found.iter().any(|(_, kind)| *kind == EventKind::TeamDeleted));
}

/// M8: not even that there is much to look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m8_nothing_is_shown_of_a_key_of_another_account() {
    let (world, busy) = world().await;
    let unknown = KeyId::from_uuid(uuid::Uuid::nil()).to_string();
    let request = |key: &str, kinds: Vec<i32>| ListEventsRequest {
        account_id: OTHER.into(),
        key_id: key.into(),
        kinds,
        ..Default::default()
    };
    let other = world.product.for_user(OTHER, "owner");
    for kinds in [vec![], vec![EventKind::TeamDeleted.into()], vec![EventKind::ApiKeyDisabled.into()]] {
        let of_another = other.events().list_events(request(&busy, kinds.clone())).await.expect("a page").into_inner();
        let of_none = other.events().list_events(request(&unknown, kinds)).await.expect("a page").into_inner();
        assert_eq!((of_another.events.len(), of_another.next_page_token.as_str()), (0, ""));
        assert_eq!(of_another, of_none);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_a_chain_is_verified_a_bounded_part_at_a_time() {
    let (world, _) = world().await;
    let head = head(&world).await;
    let verify = async |start_number: i64| {
        let request = VerifyEventChainRequest { account_id: String::new(), start_number };
        world.auditor.events().verify_event_chain(request).await.expect("a report").into_inner()
    };
    let (mut verified, mut start) = (0, 0);
    loop {
        let report = verify(start).await;
        assert!(report.valid, "{report:?}");
        assert!(report.verified_events <= 100);
        verified += report.verified_events;
        assert_eq!(report.verified_through.expect("a revision").number, verified);
        start = report.next_start_number;
        if start == 0 {
            break;
        }
        assert_eq!((report.verified_events, start), (100, verified + 1));
    }
    assert_eq!(verified, head);
    // A part that is sound is valid, and says where to go on; the part that is not, says where it breaks.
    use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
    let url = postgres().await.superuser_url(&world.server.database.name);
    let mut sql = AsyncPgConnection::establish(&url).await.expect("a connection");
    sql.batch_execute("UPDATE events SET target_id = 'x' WHERE number = 150").await.expect("tampered");
    let report = verify(0).await;
    assert!(report.valid && report.next_start_number == 101, "{report:?}");
    let report = verify(101).await;
    assert_eq!((report.valid, report.first_invalid_number, report.next_start_number), (false, 150, 0));
}
