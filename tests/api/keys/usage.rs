//! K9: when a token was last used.

use latchkey::proto::{ApiKey, VerificationOutcome as Outcome};

use crate::support::{Server, World, calls::*, world::*};

async fn world() -> World {
    World::on(Server::start_with(|flags| flags.with("usage_flush_interval_ms", "100")).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_a_use_is_written_down_without_an_event_or_a_new_etag() {
    let world = world().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let stored = minted.api_key.unwrap();
    assert_eq!((stored.last_used_time, stored.current_token_last_used_time), (None, None));
    let before = head(&world).await;
    assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
    let read = async || get(&owner, ACME, &stored.key_id).await.unwrap();
    eventually("the use is written down", async || read().await.last_used_time.is_some()).await;
    let used = read().await;
    assert!(micros(&used.last_used_time.unwrap()) >= micros(&stored.create_time.unwrap()));
    assert_eq!(used.current_token_last_used_time, used.last_used_time);
    let unused = ApiKey { last_used_time: None, current_token_last_used_time: None, ..used.clone() };
    assert_eq!(unused, stored, "nothing else changed, the etag included");
    assert_eq!(head(&world).await, before);
    // A later use moves it on. Uses close together count as one: keep using it.
    let later = async || {
        assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
        micros(&read().await.last_used_time.unwrap()) > micros(&used.last_used_time.unwrap())
    };
    eventually("a later use is written down", later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_only_a_valid_answer_is_a_use_and_a_call_of_the_key_itself_is_one() {
    let world = world().await;
    let owner = world.user("owner");
    let mint = async || create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let (refused, disabled, caller) = (mint().await, mint().await, mint().await);
    let id = |minted: &latchkey::proto::CreateApiKeyResponse| minted.api_key.as_ref().unwrap().key_id.clone();
    disable(&owner, ACME, &id(&disabled)).await.unwrap();
    assert_eq!(world.outcome(&refused.token, "billing.manage", &[]).await, Outcome::PermissionDenied);
    assert_eq!(world.verify(&disabled.token, None).await.outcome(), Outcome::Disabled);
    let bearer = world.server.caller(&caller.token);
    bearer.tokens().get_identity(latchkey::proto::GetIdentityRequest {}).await.expect("it calls for itself");
    let used = async |id: &str| get(&owner, ACME, id).await.unwrap().last_used_time.is_some();
    let caller_id = id(&caller);
    eventually("the call is written down", async || used(&caller_id).await).await;
    assert!(!used(&id(&refused)).await);
    assert!(!used(&id(&disabled)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_each_token_has_its_own_last_use() {
    let world = world().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    let read = async || get(&owner, ACME, &id).await.unwrap();
    let rotated = rotate(&owner, ACME, &id, None).await.unwrap();
    world.verify(&minted.token, None).await;
    eventually("the retiring one's use", async || read().await.retiring_token_last_used_time.is_some()).await;
    let first = read().await;
    assert_eq!(first.current_token_last_used_time, None, "the new one was not used");
    assert_eq!(first.last_used_time, first.retiring_token_last_used_time);
    world.verify(&rotated.token, None).await;
    eventually("the current one's use", async || read().await.current_token_last_used_time.is_some()).await;
    let second = read().await;
    assert_eq!(second.retiring_token_last_used_time, first.retiring_token_last_used_time);
    assert_eq!(second.last_used_time, second.current_token_last_used_time);
    // Rotated again, the current one's becomes the retiring one's; the key's stays.
    let third = rotate(&owner, ACME, &id, None).await.unwrap().api_key.unwrap();
    assert_eq!(third.current_token_last_used_time, None);
    assert_eq!(third.retiring_token_last_used_time, second.current_token_last_used_time);
    assert_eq!(third.last_used_time, second.last_used_time);
    assert_eq!(read().await, third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_a_clean_stop_writes_the_last_uses_down() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    assert_eq!(world.verify(&minted.token, None).await.outcome(), Outcome::Valid);
    let (database, product) = (world.server.database.clone(), world.product.clone());
    world.server.running.stop().await;
    let again = Server::start_on(database, |flags| flags).await;
    let owner = crate::support::Caller { channel: again.channel.clone(), ..product }.for_user(ACME, "owner");
    let stored = get(&owner, ACME, &minted.api_key.unwrap().key_id).await.unwrap();
    assert!(stored.last_used_time.is_some());
}
