//! The queues: their bounds, who leaves them, and what passes them.

use std::time::Duration;

use latchkey::proto::{CreateApiKeyRequest, UpdateApiKeyRequest};
use prost_types::FieldMask;
use tonic::{Code, Request};

use super::{Flood, apart, exceeded};
use crate::support::{
    Caller, Server, World,
    calls::{delete, eventually, get, head, revoke, suspend},
    sql,
    world::{ACME, OTHER, create, key, strings},
};

/// Holds the row of an account, as a transaction of another replica does.
async fn holding(world: &World, account: &str, while_held: impl Future<Output = ()>) {
    let hold = format!(
        "BEGIN; SELECT 1 FROM accounts WHERE account_id = '{account}' FOR NO KEY UPDATE; SELECT pg_sleep(2); COMMIT"
    );
    let held = sql::run(&world.server.database, &hold);
    tokio::join!(held, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        while_held.await;
    });
}

/// How many sessions of the server wait for a lock.
async fn waiting_for_locks(world: &World) -> usize {
    let waiting = "SELECT DISTINCT l.pid::text AS line FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                   WHERE NOT l.granted AND a.datname = current_database()";
    sql::lines(&world.server.database, waiting).await.len()
}

async fn patient(change: impl FnOnce(latchkey::settings::Flags) -> latchkey::settings::Flags) -> World {
    World::on(Server::start_with(|flags| change(flags.with("database_timeout_ms", "20000"))).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_given_up_leaves_the_queue_and_never_begins() {
    let world = patient(|flags| flags).await;
    let owner = world.user("owner");
    let before = head(&world).await;
    holding(&world, ACME, async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..10 {
            let owner = owner.clone();
            calls.spawn(async move {
                let api_key = Some(key(&format!("given-up-{n}"), &[]));
                let mut request =
                    Request::new(CreateApiKeyRequest { account_id: ACME.into(), api_key, ..Default::default() });
                request.set_timeout(Duration::from_millis(600));
                owner.keys().create_api_key(request).await.map(drop)
            });
        }
        eventually("one waits for the row", async || waiting_for_locks(&world).await >= 1).await;
        assert_eq!(waiting_for_locks(&world).await, 1, "the others wait in the process");
        assert!(calls.join_all().await.into_iter().all(|answer| answer.is_err()));
    })
    .await;
    // The one that had begun runs to its end by itself, and no other.
    create(&owner, ACME, &key("after", &[])).await.expect("minted");
    assert_eq!(head(&world).await, before + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded_for_a_caller_and_an_account_and_the_bound_is_named() {
    let few = |flags: latchkey::settings::Flags| {
        flags.with("waiting_calls_per_caller_max", "3").with("waiting_calls_per_account_max", "5")
    };
    let world = patient(few).await;
    let (owner, admin) = (apart(&world, &world.user("owner")).await, apart(&world, &world.user("admin")).await);
    let doomed = create(&owner, ACME, &key("doomed", &[])).await.expect("minted").api_key.expect("a key").key_id;
    let mint = |caller: &Caller| {
        let caller = caller.clone();
        tokio::spawn(async move { create(&caller, ACME, &key("k", &[])).await.map(drop) })
    };
    holding(&world, ACME, async {
        // One at work, three that wait; then the other's two.
        let mut calls: Vec<_> = (0..4).map(|_| mint(&owner)).collect();
        eventually("one waits for the row", async || waiting_for_locks(&world).await == 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(exceeded(create(&owner, ACME, &key("k", &[])).await), bound("waiting_calls_per_caller_max", "3"));
        calls.extend((0..2).map(|_| mint(&admin)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(exceeded(create(&admin, ACME, &key("k", &[])).await), bound("waiting_calls_per_account_max", "5"));
        // Another account's calls go on, and this one's reads.
        create(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.expect("minted");
        get(&owner, ACME, &doomed).await.expect("read");
        // A revocation is in another line, and waits for the row alone.
        delete(&owner, ACME, &doomed).await.expect("deleted");
        for call in calls {
            call.await.expect("ends").expect("minted");
        }
    })
    .await;
}

fn bound(name: &str, limit: &str) -> (String, String) {
    (name.to_owned(), limit.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ended_is_revoked_again_without_a_transaction_and_awaits_the_current_head() {
    let world = patient(|flags| flags).await;
    let minted = create(&world.user("owner"), ACME, &key("dead", &[])).await.expect("minted");
    let dead = world.server.caller(&minted.token);
    let first = revoke(&dead).await.expect("revoked");
    suspend(&world, ACME).await;
    let last = head(&world).await;
    holding(&world, ACME, async {
        for _ in 0..3 {
            let again = tokio::time::timeout(Duration::from_secs(1), revoke(&dead)).await;
            let again = again.expect("it waits for no row").expect("in a suspended account too (A2)");
            let number = again.revision.expect("a revision").number;
            assert!(again.complete && number == last, "{first:?} {again:?}");
        }
        assert_eq!(waiting_for_locks(&world).await, 0);
    })
    .await;
    assert_eq!(head(&world).await, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_only_takes_authority_away_passes_those_that_may_give_some() {
    let world = patient(|flags| flags).await;
    let (owner, admin) = (world.user("owner"), world.user("admin"));
    let minted = create(&owner, ACME, &key("edited", &["incidents.view"])).await.expect("minted");
    let key_id = minted.api_key.expect("a key").key_id;
    let flooder = apart(&world, &admin).await;
    let flood = Flood::start(32, move || {
        let flooder = flooder.clone();
        async move { create(&flooder, ACME, &key("flood", &[])).await.map(drop) }
    });
    flood.under_way().await;
    let mut request = Request::new(UpdateApiKeyRequest {
        account_id: ACME.into(),
        api_key: Some(latchkey::proto::ApiKey { key_id: key_id.clone(), ..Default::default() }),
        update_mask: Some(FieldMask { paths: strings(&["account_permissions", "team_scope"]) }),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let answer = apart(&world, &admin).await.keys().update_api_key(request).await.expect("in time").into_inner();
    assert!(answer.propagation.expect("a propagation").complete);
    flood.stop().await;
    let status = create(&world.user("standard"), ACME, &key("k", &[])).await.map(drop).expect_err("no manager");
    assert_eq!(status.code(), Code::PermissionDenied);
}
