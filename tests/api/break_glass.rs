//! A3: what only the reach of `system.operate` lets an operator read, an auditor finds in the log.

use std::collections::BTreeSet;

use latchkey::{
    app::types::{ApiKeyDraft, Expiry},
    domain::permissions::grants::Grants,
    proto::{
        Event, EventKind, GetAccountRequest, GetCatalogueRequest, GetIdentityRequest, GetTeamRequest,
        ListAccountsRequest, ListEventsRequest, ListRolesRequest, ListTeamsRequest, ListUsersRequest,
        RotateApiKeyRequest, UpdateApiKeyRequest, VerifyEventChainRequest, WatchEventsRequest,
    },
};

use crate::{
    calls::{Minted, mint},
    support::{Caller, Server, World, calls::*, database::Database, sql, world::*},
};

/// A key of account `system` as `latchkey bootstrap` mints it.
async fn operator(world: &World, permissions: &[&str]) -> (Caller, String) {
    let draft = ApiKeyDraft {
        name: "on call".into(),
        comment: String::new(),
        metadata: Default::default(),
        grants: Grants { account_permissions: strings(permissions).into_iter().collect(), team_scope: None },
        expiry: Expiry::Never,
    };
    let minted = world.server.running.app().bootstrap(draft).await.expect("bootstrap mints");
    let token = minted.token.expect("a token").reveal().to_owned();
    (world.server.caller(&token), minted.key.key_id.to_string())
}

async fn traces(world: &World) -> Vec<Event> {
    let kinds = vec![EventKind::AccountReadByOperator.into()];
    let request = ListEventsRequest { kinds, page_size: 1_000, ..Default::default() };
    world.auditor.events().list_events(request).await.expect("the auditor reads the log").into_inner().events
}

async fn traces_of(world: &World, key_id: &str) -> Vec<Event> {
    let by = |event: &Event| event.actor.as_ref().is_some_and(|actor| actor.key_id == key_id);
    traces(world).await.into_iter().filter(by).collect()
}

/// Looks at a trace.
#[track_caller]
fn check(event: &Event, account: &str, target: &str, call: &str) {
    assert_eq!(event.account_id, account, "{event:?}");
    assert_eq!(event.kind_name, "account.read_by_operator");
    assert!(event.break_glass, "{event:?}");
    let named = event.target.as_ref().map(|target| (target.r#type.as_str(), target.id.as_str()));
    assert_eq!(named, Some(("account", target)));
    let changes: Vec<_> = event.changes.iter().map(|change| (change.field.as_str(), change.after.as_str())).collect();
    assert_eq!(changes, [("call", call)]);
}

/// Each read of account `acme`, by name.
const READS: [&str; 15] = [
    "get_api_key",
    "list_api_keys",
    "update_api_key",
    "rotate_api_key",
    "change_api_key_state",
    "get_account",
    "get_team",
    "list_teams",
    "list_roles",
    "list_users",
    "list_events",
    "verify_event_chain",
    "watch_events",
    "get_identity",
    "list_accounts",
];

async fn read(caller: &Caller, call: &str, key_id: &str) -> Result<(), tonic::Status> {
    let (account_id, keys, directory) = (ACME.to_owned(), &mut caller.keys(), &mut caller.directory());
    match call {
        "get_api_key" => get(caller, ACME, key_id).await.map(drop),
        "list_api_keys" => {
            list(caller, latchkey::proto::ListApiKeysRequest { account_id, ..Default::default() }).await.map(drop)
        }
        // What only validates, or changes nothing, answers with a key and appends nothing.
        "update_api_key" => {
            let api_key =
                Some(latchkey::proto::ApiKey { key_id: key_id.into(), name: "n".into(), ..Default::default() });
            let update_mask = Some(prost_types::FieldMask { paths: strings(&["name"]) });
            let request =
                UpdateApiKeyRequest { account_id, api_key, update_mask, validate_only: true, ..Default::default() };
            keys.update_api_key(request).await.map(drop)
        }
        "rotate_api_key" => {
            let request =
                RotateApiKeyRequest { account_id, key_id: key_id.into(), validate_only: true, ..Default::default() };
            keys.rotate_api_key(request).await.map(drop)
        }
        "change_api_key_state" => enable(caller, ACME, key_id).await.map(drop),
        "get_account" => directory.get_account(GetAccountRequest { account_id }).await.map(drop),
        "get_team" => directory.get_team(GetTeamRequest { account_id, team_id: "red".into() }).await.map(drop),
        "list_teams" => directory.list_teams(ListTeamsRequest { account_id, ..Default::default() }).await.map(drop),
        "list_roles" => directory.list_roles(ListRolesRequest { account_id, ..Default::default() }).await.map(drop),
        "list_users" => directory.list_users(ListUsersRequest { account_id, ..Default::default() }).await.map(drop),
        "list_events" => {
            caller.events().list_events(ListEventsRequest { account_id, ..Default::default() }).await.map(drop)
        }
        "verify_event_chain" => {
            let request = VerifyEventChainRequest { account_id, ..Default::default() };
            caller.events().verify_event_chain(request).await.map(drop)
        }
        "watch_events" => {
            caller.events().watch_events(WatchEventsRequest { account_id, ..Default::default() }).await.map(drop)
        }
        "get_identity" => caller.for_user(ACME, "owner").tokens().get_identity(GetIdentityRequest {}).await.map(drop),
        "list_accounts" => directory.list_accounts(ListAccountsRequest::default()).await.map(drop),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_each_read_by_break_glass_alone_is_in_that_accounts_log() {
    let world = World::start().await;
    let made: Minted = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let etag = get(&world.user("owner"), ACME, made.id()).await.expect("it is there").etag;
    let mut operators = Vec::new();
    for call in READS {
        let (caller, key_id) = operator(&world, &["system.operate"]).await;
        read(&caller, call, made.id()).await.unwrap_or_else(|status| panic!("{call}: {status:?}"));
        read(&caller, call, made.id()).await.unwrap_or_else(|status| panic!("{call}: {status:?}"));
        operators.push((call, key_id));
    }
    eventually("all are in the log", async || traces(&world).await.len() >= READS.len()).await;
    for (call, key_id) in &operators {
        let found = traces_of(&world, key_id).await;
        assert_eq!(found.len(), 1, "once an hour: {call}: {found:?}");
        let (account, target) = if *call == "list_accounts" { ("system", "") } else { (ACME, ACME) };
        check(&found[0], account, target, call);
        let user = found[0].actor.as_ref().map(|actor| actor.user_id.as_str());
        assert_eq!(user, Some(if *call == "get_identity" { "owner" } else { "" }));
    }
    // The account's own manager finds them, and nothing of the account changed.
    let request = ListEventsRequest { account_id: ACME.into(), page_size: 1_000, ..Default::default() };
    let own = world.user("owner").events().list_events(request).await.expect("its own events").into_inner().events;
    let by_operator = |event: &&Event| event.kind() == EventKind::AccountReadByOperator;
    assert_eq!(own.iter().filter(by_operator).count(), READS.len() - 1);
    assert_eq!(get(&world.user("owner"), ACME, made.id()).await.expect("it is there").etag, etag);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_what_another_permission_lets_read_is_no_break_glass() {
    let world = World::start().await;
    let made: Minted = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let (events, _) = operator(&world, &["system.operate", "system.events"]).await;
    let (directory, _) = operator(&world, &["system.operate", "system.directory"]).await;
    let (product, _) = operator(&world, &["system.operate", "system.impersonate"]).await;
    for (caller, call) in [
        (&events, "list_events"),
        (&events, "verify_event_chain"),
        (&events, "watch_events"),
        (&world.auditor, "list_events"),
        (&directory, "get_account"),
        (&directory, "list_users"),
        (&directory, "list_accounts"),
        (&world.directory, "list_teams"),
        (&product, "get_identity"),
        (&world.product, "get_identity"),
        (&world.user("owner"), "list_api_keys"),
        (&world.user("owner"), "list_events"),
    ] {
        read(caller, call, made.id()).await.unwrap_or_else(|status| panic!("{call}: {status:?}"));
    }
    // Nor is what is nobody's: the catalogue, and who one is oneself.
    events.directory().get_catalogue(GetCatalogueRequest {}).await.expect("the catalogue");
    events.tokens().get_identity(GetIdentityRequest {}).await.expect("itself");
    // A change has an event of its own, which says so.
    rename(&events, made.id()).await;
    // Whatever was to be noted was noted before this.
    let (last, key_id) = operator(&world, &["system.operate"]).await;
    read(&last, "list_api_keys", made.id()).await.expect("an operator");
    eventually("the last is in the log", async || !traces_of(&world, &key_id).await.is_empty()).await;
    let found: BTreeSet<_> =
        traces(&world).await.into_iter().filter_map(|event| event.actor).map(|by| by.key_id).collect();
    assert_eq!(found, BTreeSet::from([key_id]));
}

async fn rename(caller: &Caller, key_id: &str) {
    let api_key = latchkey::proto::ApiKey { key_id: key_id.into(), name: "renamed".into(), ..Default::default() };
    update(caller, ACME, api_key, &["name"]).await.expect("an operator edits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_change_for_a_user_by_break_glass_alone_says_so() {
    let world = World::start().await;
    let (alone, alone_id) = operator(&world, &["system.operate"]).await;
    let (both, both_id) = operator(&world, &["system.operate", "system.impersonate"]).await;
    for caller in [&alone, &both] {
        mint(&caller.for_user(ACME, "owner"), &key("k", &[])).await.expect("the owner may");
    }
    let events = events_after(&world, 0).await;
    let minted_by = |key_id: &str| {
        let by = |event: &&Event| {
            event.kind() == EventKind::ApiKeyCreated && event.actor.as_ref().is_some_and(|actor| actor.key_id == key_id)
        };
        events.iter().find(by).expect("an event").break_glass
    };
    assert!(minted_by(&alone_id));
    assert!(!minted_by(&both_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_one_trace_an_hour_over_all_replicas() {
    let world = World::start().await;
    let Database { name, app_url, owner_url } = world.server.database.clone();
    let (operator, key_id) = operator(&world, &["system.operate"]).await;
    read(&operator, "list_api_keys", "").await.expect("an operator");
    eventually("it is in the log", async || traces_of(&world, &key_id).await.len() == 1).await;
    let more = |_: u8| {
        Server::start_on(
            Database { name: name.clone(), app_url: app_url.clone(), owner_url: owner_url.clone() },
            |flags| flags,
        )
    };
    // Another replica remembers nothing of it; the database does.
    let two = more(2).await;
    let there = Caller { channel: two.channel.clone(), ..operator.clone() };
    read(&there, "list_api_keys", "").await.expect("an operator");
    two.running.app().record_operator_reads().await.expect("it is written, or found to be");
    assert_eq!(traces_of(&world, &key_id).await.len(), 1);
    sql::run(&world.server.database, "UPDATE operator_reads SET noted_time = noted_time - interval '61 minutes'").await;
    let three = more(3).await;
    let there = Caller { channel: three.channel.clone(), ..operator.clone() };
    read(&there, "list_api_keys", "").await.expect("an operator");
    three.running.app().record_operator_reads().await.expect("it is written");
    eventually("an hour later, once more", async || traces_of(&world, &key_id).await.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_read_waits_for_no_trace() {
    let world = World::start().await;
    let (operator, key_id) = operator(&world, &["system.operate"]).await;
    // Nothing can be written: the table is away. The read is answered, and the trace waits.
    world.server.database.execute_as_owner("ALTER TABLE operator_reads RENAME TO away").await;
    read(&operator, "list_api_keys", "").await.expect("an operator");
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    read(&operator, "list_api_keys", "").await.expect("an operator");
    assert_eq!(traces_of(&world, &key_id).await.len(), 0);
    world.server.database.execute_as_owner("ALTER TABLE away RENAME TO operator_reads").await;
    eventually("it is in the log", async || traces_of(&world, &key_id).await.len() == 1).await;
}
