//! ListApiKeys: pages, tokens, filters (AIP-158, AIP-164; visibility itself is M3's).

use latchkey::proto::{ApiKey, ApiKeyState as State, ListApiKeysRequest};
use tonic::Code;

use crate::support::{Caller, World, calls::*, world::*};

fn all() -> ListApiKeysRequest {
    ListApiKeysRequest { account_id: ACME.into(), ..Default::default() }
}

async fn make(caller: &Caller, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for i in 0..n {
        ids.push(create(caller, ACME, &key(&format!("k{i}"), &[])).await.unwrap().api_key.unwrap().key_id);
    }
    ids
}

fn ids(keys: &[ApiKey]) -> Vec<String> {
    keys.iter().map(|key| key.key_id.clone()).collect()
}

async fn matching(caller: &Caller, request: ListApiKeysRequest) -> Vec<String> {
    let mut names: Vec<_> = list(caller, request).await.unwrap().api_keys.into_iter().map(|key| key.name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_newest_first_in_pages_of_the_size_asked_for() {
    let world = World::start().await;
    let owner = world.user("owner");
    let mut made = make(&owner, 53).await;
    made.sort_unstable();
    made.reverse();
    let sized = |page_size| ListApiKeysRequest { page_size, ..all() };
    let first = list(&owner, sized(0)).await.unwrap();
    assert_eq!(ids(&first.api_keys), made[..50], "0 means 50");
    assert!(!first.next_page_token.is_empty());
    for size in [53, 54, 1_000, 1_001, i32::MAX] {
        let whole = list(&owner, sized(size)).await.unwrap();
        assert_eq!((ids(&whole.api_keys), whole.next_page_token.as_str()), (made.clone(), ""), "{size}");
    }
    for bad in [-1, i32::MIN] {
        assert_refused(list(&owner, sized(bad)).await, Code::InvalidArgument, "INVALID_FIELD", "page_size");
    }
    // The pages of any sizes make the whole, each key once.
    let (mut walked, mut page_token, mut sizes) = (Vec::new(), String::new(), [1, 7, 20].into_iter().cycle());
    loop {
        let page_size = sizes.next().unwrap();
        let page = list(&owner, ListApiKeysRequest { page_size, page_token, ..all() }).await.unwrap();
        assert!(page.api_keys.len() <= page_size as usize);
        walked.extend(ids(&page.api_keys));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(walked, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_is_bound_to_every_argument_but_the_page_size() {
    let world = World::start().await;
    let owner = world.user("owner");
    make(&owner, 3).await;
    create(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.unwrap();
    let page_token = list(&owner, ListApiKeysRequest { page_size: 1, ..all() }).await.unwrap().next_page_token;
    let with = |change: fn(&mut ListApiKeysRequest)| {
        let mut request = ListApiKeysRequest { page_token: page_token.clone(), ..all() };
        change(&mut request);
        request
    };
    assert_eq!(list(&owner, with(|request| request.page_size = 2)).await.unwrap().api_keys.len(), 2);
    let changes: [fn(&mut ListApiKeysRequest); 7] = [
        |request| request.show_deleted = true,
        |request| request.team_id = "red".into(),
        |request| request.permission = "incidents.view".into(),
        |request| request.states = vec![State::Active.into()],
        |request| request.page_token.push('A'),
        |request| request.page_token = "nonsense".into(),
        |request| request.page_token = "A".repeat(10_000),
    ];
    for change in changes {
        assert_refused(list(&owner, with(change)).await, Code::InvalidArgument, "INVALID_FIELD", "page_token");
    }
    let elsewhere = with(|request| request.account_id = OTHER.into());
    let refused = list(&world.server.operator, elsewhere).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "page_token");
    let teams = latchkey::proto::ListTeamsRequest { account_id: ACME.into(), page_token, ..Default::default() };
    let refused = world.directory.directory().list_teams(teams).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "page_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_carries_no_authority() {
    let world = World::start().await;
    let owner = world.user("owner");
    make(&owner, 2).await;
    let red = create(&owner, ACME, &team_key("red", &[], &["red"], &["secrets.use"])).await.unwrap();
    make(&owner, 2).await;
    let page_token = list(&owner, ListApiKeysRequest { page_size: 1, ..all() }).await.unwrap().next_page_token;
    let next = ListApiKeysRequest { page_token, ..all() };
    let seen = list(&world.user("red_manager"), next.clone()).await.unwrap();
    assert_eq!(ids(&seen.api_keys), [red.api_key.unwrap().key_id], "what a red manager sees");
    let refused = list(&world.user("standard"), next.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
    let refused = list(&world.product.for_user(OTHER, "owner"), next).await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_stable_under_concurrent_inserts_and_deletes() {
    let world = World::start().await;
    let owner = world.user("owner");
    let mut before = make(&owner, 20).await;
    let busy = {
        let owner = world.user("owner");
        tokio::spawn(async move {
            for _ in 0..15 {
                let made = make(&owner, 1).await;
                delete(&owner, ACME, &made[0]).await.unwrap();
                make(&owner, 1).await;
            }
        })
    };
    let (mut walked, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(&owner, ListApiKeysRequest { page_size: 2, page_token, ..all() }).await.unwrap();
        walked.extend(ids(&page.api_keys));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    busy.await.unwrap();
    assert!(walked.windows(2).all(|pair| pair[0] > pair[1]), "newest first, none twice");
    before.retain(|id| !walked.contains(id));
    assert_eq!(before, Vec::<String>::new(), "none that was there is missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose_by_team_by_name_granted_and_by_state() {
    let world = World::start().await;
    let owner = world.user("owner");
    let mint = async |key: ApiKey| create(&owner, ACME, &key).await.unwrap().api_key.unwrap().key_id;
    mint(key("account", &["schedules.edit", "incidents.view"])).await;
    mint(team_key("red", &[], &["red"], &["schedules.edit"])).await;
    mint(team_key("red+green", &["incidents.view"], &["green", "red"], &["schedules.view"])).await;
    let disabled = mint(key("disabled", &["schedules.edit"])).await;
    disable(&owner, ACME, &disabled).await.unwrap();
    let deleted = mint(team_key("deleted", &[], &["red"], &["schedules.edit"])).await;
    delete(&owner, ACME, &deleted).await.unwrap();

    let by = |change: &dyn Fn(&mut ListApiKeysRequest)| {
        let mut request = all();
        change(&mut request);
        matching(&owner, request)
    };
    assert_eq!(by(&|_| ()).await, ["account", "disabled", "red", "red+green"]);
    assert_eq!(by(&|request| request.team_id = "red".into()).await, ["red", "red+green"]);
    assert_eq!(by(&|request| request.team_id = "blue".into()).await, [""; 0]);
    assert_eq!(by(&|request| request.team_id = "no-such".into()).await, [""; 0]);
    let named = |name: &'static str| move |request: &mut ListApiKeysRequest| request.permission = name.into();
    assert_eq!(by(&named("schedules.edit")).await, ["account", "disabled", "red"]);
    assert_eq!(by(&named("schedules.view")).await, ["red+green"], "as granted, not as implied");
    assert_eq!(by(&named("no.such")).await, [""; 0]);
    let in_states = |states: &'static [State], show_deleted| {
        move |request: &mut ListApiKeysRequest| {
            request.states = states.iter().map(|state| i32::from(*state)).collect();
            request.show_deleted = show_deleted;
        }
    };
    assert_eq!(by(&in_states(&[], true)).await, ["account", "deleted", "disabled", "red", "red+green"]);
    assert_eq!(by(&in_states(&[State::Disabled], false)).await, ["disabled"]);
    assert_eq!(by(&in_states(&[State::Active], true)).await, ["account", "red", "red+green"]);
    assert_eq!(by(&in_states(&[State::Deleted], true)).await, ["deleted"]);
    assert_eq!(by(&in_states(&[State::Disabled, State::Deleted], true)).await, ["deleted", "disabled"]);
    let both = |request: &mut ListApiKeysRequest| {
        (request.team_id, request.permission) = ("red".into(), "incidents.view".into());
    };
    assert_eq!(by(&both).await, ["red+green"]);

    for (states, show_deleted, field) in
        [(vec![State::Deleted], false, "states[0]"), (vec![State::Active, State::Unspecified], true, "states[1]")]
    {
        let states = states.into_iter().map(i32::from).collect();
        let refused = list(&owner, ListApiKeysRequest { states, show_deleted, ..all() }).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    }
    let refused = list(&owner, ListApiKeysRequest { states: vec![99], ..all() }).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "states[0]");
    let refused = list(&owner, ListApiKeysRequest { permission: "Not A Name".into(), ..all() }).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "permission");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_filters_apply_after_visibility() {
    let world = World::start().await;
    let owner = world.user("owner");
    for (name, teams) in [("red", &["red"][..]), ("red+blue", &["red", "blue"]), ("blue", &["blue"])] {
        create(&owner, ACME, &team_key(name, &[], teams, &["secrets.use"])).await.unwrap();
    }
    create(&owner, ACME, &key("account", &["secrets.use"])).await.unwrap();
    let on = |team: &str| ListApiKeysRequest { team_id: team.into(), ..all() };
    let manager = world.user("red_manager");
    assert_eq!(matching(&manager, all()).await, ["red", "red+blue"]);
    assert_eq!(matching(&manager, on("red")).await, ["red", "red+blue"]);
    let named = ListApiKeysRequest { permission: "secrets.use".into(), ..all() };
    assert_eq!(matching(&manager, named).await, ["red", "red+blue"]);
    // A team that is not managed is refused by name, whether it exists or not (M8).
    for team in ["blue", "no-such"] {
        assert_refused(list(&manager, on(team)).await, Code::PermissionDenied, "PERMISSION_MISSING", team);
    }
    assert_refused(
        list(&world.user("standard"), all()).await,
        Code::PermissionDenied,
        "PERMISSION_MISSING",
        "api_keys.manage",
    );
}
