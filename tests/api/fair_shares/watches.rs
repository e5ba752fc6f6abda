//! The bounds on open watches, and that a tenant's do not starve the operator's audit.

use std::time::Duration;

use latchkey::proto::{WatchEventsRequest, WatchEventsResponse};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{Flood, apart, exceeded};
use crate::support::{
    Caller, Server, World,
    calls::head,
    world::{ACME, OTHER, create, key},
};

async fn watch(caller: &Caller, account: &str, after: i64) -> Result<Streaming<WatchEventsResponse>, Status> {
    let after_revision = Some(latchkey::proto::Revision { epoch: 1, number: after });
    let request = WatchEventsRequest { account_id: account.into(), after_revision };
    Ok(caller.events().watch_events(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_account_opens_so_many_watches_and_shuts_out_neither_other_tenants_nor_the_audit() {
    let world = World::start().await;
    let (owner, admin) = (world.user("owner"), world.user("admin"));
    let last = head(&world).await;
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(watch(&owner, ACME, last).await.expect("room"));
    }
    for manager in [&owner, &admin] {
        let refused = exceeded(watch(manager, ACME, last).await);
        assert_eq!(refused, ("watches_per_account_max".to_owned(), "50".to_owned()));
    }
    let mut audit = watch(&world.auditor, "", last).await.expect("the audit's");
    let mut theirs = watch(&world.product.for_user(OTHER, "owner"), OTHER, last).await.expect("another tenant's");
    // The audit hears of each change in time, although the tenant's watches read whenever there is one.
    let flooder = apart(&world, &admin).await;
    let flood = Flood::start(4, move || {
        let flooder = flooder.clone();
        async move { create(&flooder, ACME, &key("flood", &[])).await.map(drop) }
    });
    flood.under_way().await;
    let other = apart(&world, &world.product.for_user(OTHER, "owner")).await;
    let minted = create(&other, OTHER, &key("theirs", &[])).await.expect("minted").api_key.expect("a key");
    for hears in [&mut theirs, &mut audit] {
        let heard = async {
            loop {
                let message = hears.message().await.expect("open").expect("no end");
                if message.event.is_some_and(|event| event.target.is_some_and(|target| target.id == minted.key_id)) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(5), heard).await.expect("in time");
    }
    flood.stop().await;
    open.clear();
    for _ in 0..50 {
        // A watch that ended makes room; its end may still be on the way.
        let again = async {
            while watch(&owner, ACME, last).await.map(|watch| open.push(watch)).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(5), again).await.expect("room again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_watches_are_kept_for_who_reads_every_accounts_log() {
    let few = |flags: latchkey::settings::Flags| {
        flags.with("watches_max", "4").with("account_watches_max", "3").with("watches_per_account_max", "2")
    };
    let world = World::on(Server::start_with(few).await).await;
    let last = head(&world).await;
    let (owner, other) = (world.user("owner"), world.product.for_user(OTHER, "owner"));
    let _open = [
        watch(&owner, ACME, last).await.expect("room"),
        watch(&owner, ACME, last).await.expect("room"),
        watch(&other, OTHER, last).await.expect("room"),
    ];
    assert_eq!(exceeded(watch(&other, OTHER, last).await).0, "account_watches_max");
    let _audit = watch(&world.auditor, "", last).await.expect("kept for it");
    assert_eq!(exceeded(watch(&world.auditor, "", last).await).0, "watches_max");
}
