//! A lock that is held for long fails the calls that want it, and is no outage: calls beside it go on. What an outage
//! is, `tests/outage.rs` shows.

use std::time::Duration;

use super::apart;
use crate::support::{
    World,
    calls::get,
    sql,
    world::{ACME, OTHER, create, key},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_outlasts_every_time_limit_is_no_outage_for_others() {
    let world = World::start().await;
    let owner = apart(&world, &world.user("owner")).await;
    let other = world.product.for_user(OTHER, "owner");
    let key_id = create(&other, OTHER, &key("k", &[])).await.expect("minted").api_key.expect("a key").key_id;
    let hold = "BEGIN; SELECT 1 FROM accounts WHERE account_id = 'acme' FOR UPDATE; SELECT pg_sleep(5); COMMIT";
    let held = sql::run(&world.server.database, hold);
    let beside = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let blocked = tokio::spawn(async move { create(&owner, ACME, &key("k", &[])).await.map(drop) });
        for _ in 0..30 {
            get(&other, OTHER, &key_id).await.expect("the database is there");
            create(&other, OTHER, &key("k", &[])).await.expect("the database is there");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _ = blocked.await.expect("ends");
    };
    tokio::join!(held, beside);
}
