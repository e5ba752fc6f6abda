//! T3: ended tokens are told from unknown ones for so many days, and no longer.

use latchkey::proto::{EventKind, VerificationOutcome as Outcome};
use tonic::Code;

use crate::support::{Caller, Server, World, calls::*, sql, world::*};

/// A server forgets what is due when it starts, and every hour after: a start stands for the hour.
async fn restart(world: &mut World) -> Server {
    let retention = |flags: latchkey::settings::Flags| flags.with("ended_token_retention_days", "10");
    let again = Server::start_on(world.server.database.clone(), retention).await;
    for caller in [&mut world.verifier, &mut world.product] {
        caller.channel = again.channel.clone();
    }
    again
}

/// As if so many days had passed since these ends. Only a test may: nothing in the product moves them.
async fn backdate(world: &World, days: u32) {
    let back = format!("- interval '{days} days'");
    let sql = format!(
        "UPDATE api_key_secrets SET end_time = end_time {back} WHERE end_time IS NOT NULL; \
         UPDATE api_keys SET delete_time = delete_time {back} WHERE delete_time IS NOT NULL;"
    );
    sql::run(&world.server.database, &sql).await;
}

/// What hangs on keys that are no more.
const LEFT: &str = "SELECT ((SELECT count(*) FROM token_usage WHERE key_id NOT IN (SELECT key_id FROM api_keys)) \
    + (SELECT count(*) FROM accounts WHERE account_id = 'acme' AND deleted_api_key_count <> 0))::text AS line";

/// How many digests the account's keys have on record.
async fn kept(world: &World) -> usize {
    let sql = "SELECT name AS line FROM api_key_secrets JOIN api_keys USING (key_id) WHERE account_id = 'acme'";
    sql::lines(&world.server.database, sql).await.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_digests_of_ended_tokens_are_kept_for_the_retention_and_then_unknown() {
    let mut world = World::start().await;
    let owner = world.user("owner");
    let rotated = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let rotated_id = rotated.api_key.unwrap().key_id;
    let current = rotate(&owner, ACME, &rotated_id, Some(seconds(0))).await.unwrap().token;
    let deleted = create(&owner, ACME, &key("k", &[])).await.unwrap();
    delete(&owner, ACME, &deleted.api_key.as_ref().unwrap().key_id).await.unwrap();
    let outcomes = async |world: &World| {
        let outcome = async |token: &str| world.verify(token, None).await.outcome();
        [outcome(&rotated.token).await, outcome(&deleted.token).await, outcome(&current).await]
    };
    let ended = [Outcome::Rotated, Outcome::Deleted, Outcome::Valid];
    assert_eq!(outcomes(&world).await, ended);
    assert_eq!(kept(&world).await, 3);

    backdate(&world, 9).await;
    let _nine = restart(&mut world).await;
    assert_eq!(outcomes(&world).await, ended, "nine days of ten");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(kept(&world).await, 3);

    backdate(&world, 2).await;
    let ten = restart(&mut world).await;
    eventually("the digests are forgotten", async || kept(&world).await == 1).await;
    let _after = restart(&mut world).await;
    assert_eq!(outcomes(&world).await, [Outcome::Unknown, Outcome::Unknown, Outcome::Valid]);
    // The deleted key is erased with everything of its own, in an event that names it; its token is nobody's.
    let owner = world.user("owner");
    let erased_id = deleted.api_key.as_ref().unwrap().key_id.clone();
    assert_refused(get(&owner, ACME, &erased_id).await, Code::NotFound, "NOT_FOUND", "");
    assert_eq!(kinds_of(&world, &erased_id).await.last(), Some(&EventKind::ApiKeysErased));
    get(&owner, ACME, &rotated_id).await.expect("the other stays");
    assert_eq!(sql::lines(&world.server.database, LEFT).await, ["0"]);
    let bearer = Caller { channel: ten.channel.clone(), token: deleted.token.clone(), on_behalf_of: None };
    assert_refused(revoke(&bearer).await, Code::Unauthenticated, "BAD_CREDENTIALS", "UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_an_expired_or_disabled_keys_token_is_not_forgotten() {
    let mut world = World::start().await;
    let owner = world.user("owner");
    let disabled = create(&owner, ACME, &key("k", &[])).await.unwrap();
    disable(&owner, ACME, &disabled.api_key.unwrap().key_id).await.unwrap();
    let expired = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let id = &expired.api_key.as_ref().unwrap().key_id;
    sql::run(
        &world.server.database,
        "UPDATE api_keys SET expire_time = now() - interval '1 year' WHERE state = 'active' AND account_id = 'acme'",
    )
    .await;
    let _again = restart(&mut world).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let _once_more = restart(&mut world).await;
    assert_eq!(world.verify(&disabled.token, None).await.outcome(), Outcome::Disabled);
    assert_eq!(world.verify(&expired.token, None).await.outcome(), Outcome::Expired);
    let extended = latchkey::proto::ApiKey { key_id: id.clone(), ..key("k", &[]) };
    update(&world.user("owner"), ACME, extended, &["expire_time"]).await.expect("its expiry can be moved");
    assert_eq!(world.verify(&expired.token, None).await.outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_a_caller_that_creates_and_deletes_without_end_is_refused_a_key_until_old_ones_are_erased() {
    let few = |flags: latchkey::settings::Flags| {
        flags.with("deleted_api_keys_per_account_max", "2").with("ended_token_retention_days", "10")
    };
    let mut world = World::on(Server::start_with(few).await).await;
    let owner = world.user("owner");
    let mut made = Vec::new();
    for _ in 0..3 {
        let key = team_key("k", &[], &["red"], &["secrets.use"]);
        made.push(create(&owner, ACME, &key).await.unwrap().api_key.unwrap().key_id);
    }
    for key in &made {
        delete(&owner, ACME, key).await.expect("deleting is never refused");
    }
    let refused = create(&owner, ACME, &key("k", &[])).await;
    assert_refused(refused, Code::ResourceExhausted, "QUOTA_EXCEEDED", "deleted_api_keys_per_account");
    create(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.expect("another account's");

    backdate(&world, 11).await;
    let again = Server::start_on(world.server.database.clone(), few).await;
    world.product.channel = again.channel.clone();
    let owner = world.user("owner");
    eventually("the deleted keys are erased", async || create(&owner, ACME, &key("k", &[])).await.is_ok()).await;
    assert_refused(get(&owner, ACME, &made[0]).await, Code::NotFound, "NOT_FOUND", "");
    assert_eq!(sql::lines(&again.database, LEFT).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_key_with_too_many_tokens_on_record_is_not_rotated_but_can_be_revoked() {
    let few = |flags: latchkey::settings::Flags| flags.with("tokens_per_api_key_max", "4");
    let world = World::on(Server::start_with(few).await).await;
    let owner = world.user("owner");
    let made = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let id = made.api_key.unwrap().key_id;
    assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::Valid);
    world.server.running.app().flush_usage().await.expect("uses are written");
    let used = get(&owner, ACME, &id).await.unwrap().last_used_time;
    assert!(used.is_some());
    let mut current = made.token;
    for _ in 0..3 {
        current = rotate(&owner, ACME, &id, Some(seconds(0))).await.expect("up to the bound").token;
    }
    let refused = rotate(&owner, ACME, &id, None).await;
    assert_refused(refused, Code::ResourceExhausted, "QUOTA_EXCEEDED", "tokens_per_api_key");
    // K9: the last use of tokens that ended is the key's still, in one place however many they were.
    assert_eq!(get(&owner, ACME, &id).await.unwrap().last_used_time, used);
    assert!(
        sql::lines(
            &world.server.database,
            "SELECT key_id::text AS line FROM token_usage u \
        JOIN api_keys k USING (key_id) WHERE k.account_id = 'acme'"
        )
        .await
        .is_empty()
    );
    revoke(&world.server.caller(&current)).await.expect("revocation is never refused");
    assert_eq!(world.verify(&current, None).await.outcome(), Outcome::Deleted);
}
