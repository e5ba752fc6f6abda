//! V5: one event for every change, in commit order, saying who did what to what; never a secret.

use latchkey::proto::{
    Account, ApiKey, DeleteUserRequest, EventKind, ResumeAccountRequest, RevokeTokenRequest, Role, RoleKind,
    SuspendAccountRequest, UpsertAccountRequest, UpsertRoleRequest, UserState,
};

use crate::{
    calls::*,
    support::{World, database::postgres, world::*},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_every_mutation_of_a_key_is_one_event_that_says_who_did_what_to_what() {
    let world = World::start().await;
    let (owner, before) = (world.user("owner"), head(&world).await);
    let service = world.product.tokens().get_identity(latchkey::proto::GetIdentityRequest {}).await.expect("itself");
    let service = service.into_inner().api_key.expect("a key").key_id;
    let made = team_key("first", &["billing.manage", "incidents.edit"], &["red"], &["secrets.manage"]);
    let made = mint(&owner, &made).await.expect("a key");
    let edit = team_key("second", &["billing.manage", "settings.view"], &["green"], &["secrets.manage"]);
    update(&owner, made.id(), &["*"], living(edit, 3_600)).await.expect("edited");
    let rotated = rotate(&owner, made.id()).await.expect("rotated");
    disable(&owner, made.id()).await.expect("off");
    enable(&owner, made.id()).await.expect("on");
    let deleted = mint(&owner, &key("k", &[])).await.expect("a key");
    delete(&owner, deleted.id()).await.expect("deleted");
    let retiring =
        world.server.caller(&made.token).tokens().revoke_token(RevokeTokenRequest { ..Default::default() }).await;
    retiring.expect("the retiring token ends itself");
    let current =
        world.server.caller(&rotated.token).tokens().revoke_token(RevokeTokenRequest { ..Default::default() }).await;
    current.expect("the current token deletes the key");

    let events = events_after(&world, before).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    use EventKind as K;
    let expected = [K::ApiKeyCreated, K::ApiKeyUpdated, K::ApiKeyRotated, K::ApiKeyDisabled, K::ApiKeyEnabled];
    let rest = [K::ApiKeyCreated, K::ApiKeyDeleted, K::RetiringTokenRevoked, K::ApiKeyRevoked];
    assert_eq!(kinds, [&expected[..], &rest[..]].concat());
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.revision.expect("a revision").number, before + 1 + i as i64);
        assert_eq!(event.account_id, ACME);
        assert!(event.event_id.starts_with("evt_"), "{event:?}");
        let target = event.target.as_ref().expect("a target");
        let id = if (5..7).contains(&i) { deleted.id() } else { made.id() };
        assert_eq!((target.r#type.as_str(), target.id.as_str()), ("api_key", id));
        let actor = event.actor.as_ref().expect("an actor");
        let by = if i < 7 { (service.as_str(), "owner") } else { (made.id(), "") };
        assert_eq!((actor.key_id.as_str(), actor.user_id.as_str()), by, "{event:?}");
        assert_eq!(actor.account_id, ACME);
        assert!(!event.break_glass && event.affected_key_ids.is_empty());
        assert_eq!(event.hash.len(), 32);
    }

    let created = &events[0];
    assert_eq!(change(created, "account_permissions").2, strings(&["billing.manage", "incidents.edit"]));
    assert_eq!(change(created, "team_scope.team_ids").2, strings(&["red"]));
    assert_eq!((change(created, "state").0, change(created, "state").1), ("", "active"));
    let updated = &events[1];
    assert_eq!((change(updated, "name").0, change(updated, "name").1), ("first", "second"));
    assert_eq!(change(updated, "account_permissions").2, strings(&["settings.view"]));
    assert_eq!(change(updated, "account_permissions").3, strings(&["incidents.edit"]));
    assert_eq!(change(updated, "team_scope.team_ids").2, strings(&["green"]));
    assert_eq!(change(updated, "team_scope.team_ids").3, strings(&["red"]));
    assert_eq!(change(updated, "expire_time").0, "");
    assert!(change(updated, "expire_time").1.parse::<i64>().is_ok());
    let only_these = ["name", "account_permissions", "team_scope.team_ids", "expire_time"];
    assert_eq!(fields(updated), only_these.into(), "what did not change is not named");
    assert_eq!(change(&events[2], "token_hint").0, made.key.token_hint);
    assert_eq!(change(&events[2], "token_hint").1, rotated.key.token_hint);
    assert_eq!((change(&events[3], "state").0, change(&events[3], "state").1), ("active", "disabled"));
    assert_eq!((change(&events[8], "state").0, change(&events[8], "state").1), ("active", "deleted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_every_mutation_of_the_directory_is_one_event() {
    let world = World::start().await;
    let directory = || world.directory.directory();
    let before = head(&world).await;
    let role = |permissions: &[&str]| UpsertRoleRequest {
        account_id: ACME.into(),
        role: Some(Role {
            role_id: "r".into(),
            kind: RoleKind::Custom.into(),
            permissions: strings(permissions),
            ..Default::default()
        }),
        validate_only: false,
        ..Default::default()
    };
    directory().upsert_role(role(&["settings.view"])).await.expect("a role");
    directory().upsert_role(role(&["billing.manage"])).await.expect("changed");
    let request =
        latchkey::proto::DeleteRoleRequest { account_id: ACME.into(), role_id: "r".into(), ..Default::default() };
    directory().delete_role(request).await.expect("deleted");
    world.make_user(ACME, "u", "standard", &[], UserState::Active).await;
    world.make_user(ACME, "u", "standard", &["red"], UserState::Deactivated).await;
    let request = DeleteUserRequest { account_id: ACME.into(), user_id: "u".into(), ..Default::default() };
    directory().delete_user(request).await.expect("deleted");
    directory()
        .suspend_account(SuspendAccountRequest { account_id: ACME.into(), ..Default::default() })
        .await
        .expect("suspended");
    directory()
        .resume_account(ResumeAccountRequest { account_id: ACME.into(), ..Default::default() })
        .await
        .expect("resumed");
    let account = Account { account_id: ACME.into(), display_name: "Renamed".into(), ..Default::default() };
    let request = UpsertAccountRequest { account: Some(account), validate_only: false, ..Default::default() };
    directory().upsert_account(request).await.expect("renamed");

    use EventKind as K;
    let events = events_after(&world, before).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    let roles = [K::RoleCreated, K::RoleUpdated, K::RoleDeleted];
    let users = [K::UserCreated, K::UserUpdated, K::UserDeleted];
    let accounts = [K::AccountSuspended, K::AccountResumed, K::AccountUpdated];
    assert_eq!(kinds, [roles, users, accounts].concat());
    assert_eq!(change(&events[1], "permissions").2, strings(&["billing.manage"]));
    assert_eq!(change(&events[1], "permissions").3, strings(&["settings.view"]));
    assert_eq!((change(&events[4], "state").0, change(&events[4], "state").1), ("active", "deactivated"));
    assert_eq!(change(&events[4], "team_roles").2, strings(&["red/manager"]));
    assert_eq!(change(&events[5], "team_roles").3, strings(&["red/manager"]));
    for event in &events {
        let actor = event.actor.as_ref().expect("an actor");
        assert_eq!((actor.account_id.as_str(), actor.user_id.as_str()), ("system", ""));
        assert!(!event.break_glass, "system.directory is no break-glass");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_what_changes_nothing_appends_nothing() {
    let world = World::start().await;
    let owner = world.user("owner");
    let made = mint(&owner, &key("k", &["billing.manage"])).await.expect("a key");
    disable(&owner, made.id()).await.expect("off");
    let before = head(&world).await;
    disable(&owner, made.id()).await.expect("again");
    update(&owner, made.id(), &["name"], key("k", &[])).await.expect("the same name");
    mint(&world.user("standard"), &key("k", &[])).await.map(drop).expect_err("refused");
    rotate(&owner, made.id()).await.map(drop).expect_err("disabled");
    get(&owner, made.id()).await.expect("a read");
    list(&owner).await.expect("a read");
    world.verify(&made.token, None).await;
    assert_eq!(head(&world).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_the_log_holds_neither_tokens_nor_comments_nor_metadata() {
    let world = World::start().await;
    let (owner, before) = (world.user("owner"), head(&world).await);
    let secret = |text: &str| ApiKey {
        comment: format!("comment-{text}"),
        metadata: [(format!("name-{text}"), format!("value-{text}"))].into(),
        ..key("k", &["billing.manage"])
    };
    let made = mint(&owner, &secret("one")).await.expect("a key");
    update(&owner, made.id(), &["comment", "metadata"], secret("two")).await.expect("edited");
    let rotated = rotate(&owner, made.id()).await.expect("rotated");
    world
        .server
        .caller(&rotated.token)
        .tokens()
        .revoke_token(RevokeTokenRequest { ..Default::default() })
        .await
        .expect("revoked");
    let events = events_after(&world, before).await;
    assert_eq!(events.len(), 4);
    assert_eq!(fields(&events[1]), ["comment", "metadata"].into());
    assert_eq!((change(&events[1], "comment").0, change(&events[1], "comment").1), ("", ""));
    // What is shown, and what is stored: all of the database, as text.
    let stored = dump(&world, "SELECT string_agg(encode(payload, 'escape'), ' ') AS text FROM events").await;
    let shown = format!("{events:?}");
    for secret in [made.token.as_str(), &rotated.token, "comment-one", "comment-two", "value-one", "value-two"] {
        assert!(!shown.contains(secret) && !stored.contains(secret), "{secret}");
    }
    let keys = "SELECT string_agg(x.t, ' ') AS text FROM (SELECT k::text AS t FROM api_keys k \
                UNION ALL SELECT s::text FROM api_key_secrets s UNION ALL SELECT u::text FROM token_usage u) x";
    let keys = dump(&world, keys).await;
    let hexed = |token: &str| token.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for token in [&made.token, &rotated.token, &world.product.token] {
        assert!(!keys.contains(token.as_str()) && !keys.contains(&hexed(token)));
    }
}

async fn dump(world: &World, sql: &str) -> String {
    use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        text: String,
    }

    let url = postgres().await.superuser_url(&world.server.database.name);
    let mut connection = AsyncPgConnection::establish(&url).await.expect("a connection");
    let row: Row = diesel::sql_query(sql).get_result(&mut connection).await.expect("text");
    row.text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_numbers_are_gap_free_and_in_commit_order_under_eight_writers() {
    let world = std::sync::Arc::new(World::start().await);
    let before = head(&world).await;
    let writer = |i: usize| {
        let world = world.clone();
        tokio::spawn(async move {
            let (mut numbers, mut last) = (Vec::new(), 0);
            for n in 0..12 {
                // Two accounts, whose writers do not wait for each other before they take the head.
                let account = [ACME, OTHER][i % 2];
                let caller = world.product.for_user(account, "owner");
                let made = create(&caller, account, &key(&format!("{i}-{n}"), &[])).await.expect("a key");
                let number = made.propagation.expect("how far").revision.expect("a revision").number;
                assert!(number > last, "what starts after an answer commits after it");
                last = number;
                numbers.push((number, made.api_key.expect("a key").key_id));
            }
            numbers
        })
    };
    let writers: Vec<_> = (0..8).map(writer).collect();
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.expect("no writer panics"));
    }
    answered.sort();
    let events = events_after(&world, before).await;
    let logged: Vec<_> = events
        .iter()
        .map(|event| (event.revision.expect("a revision").number, event.target.clone().expect("a target").id))
        .collect();
    assert_eq!(logged, answered);
    assert!(logged.iter().enumerate().all(|(i, (number, _))| *number == before + 1 + i as i64), "gap-free");
    let times: Vec<_> = events.iter().map(|event| event.time.expect("a time")).collect();
    let micros = |time: &prost_types::Timestamp| (time.seconds, time.nanos);
    assert!(times.iter().map(micros).is_sorted(), "time never decreases");
}
