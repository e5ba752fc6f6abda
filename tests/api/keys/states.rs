//! K6: ACTIVE and DISABLED back and forth, DELETED for good.

use latchkey::proto::{
    ApiKey, ApiKeyState as State, DeleteApiKeyRequest, DisableApiKeyRequest, EnableApiKeyRequest, EventKind as Kind,
    ListApiKeysRequest, VerificationOutcome as Outcome,
};
use tonic::Code;

use crate::support::{World, calls::*, world::*};

async fn minted(world: &World) -> (String, String) {
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
    (minted.api_key.unwrap().key_id, minted.token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_a_key_is_disabled_enabled_and_deleted_and_its_token_says_so() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, token) = minted(&world).await;
    let outcome = async || world.outcome(&token, "incidents.view", &[]).await;
    assert_eq!(outcome().await, Outcome::Valid);
    for _ in 0..2 {
        assert_eq!(disable(&owner, ACME, &id).await.unwrap().state(), State::Disabled);
        assert_eq!(outcome().await, Outcome::Disabled);
        assert_eq!(get(&owner, ACME, &id).await.unwrap().state(), State::Disabled);
        assert_eq!(enable(&owner, ACME, &id).await.unwrap().state(), State::Active);
        assert_eq!(outcome().await, Outcome::Valid);
    }
    disable(&owner, ACME, &id).await.unwrap();
    let deleted = delete(&owner, ACME, &id).await.unwrap();
    assert_eq!((deleted.state(), deleted.delete_time.is_some()), (State::Deleted, true));
    assert_eq!(outcome().await, Outcome::Deleted);
    let on_record = get(&owner, ACME, &id).await.expect("deleted keys can be read (AIP-164)");
    assert_eq!(on_record, deleted);
    let listed = list(&owner, ListApiKeysRequest { account_id: ACME.into(), ..Default::default() }).await.unwrap();
    assert!(listed.api_keys.iter().all(|key| key.key_id != id));
    let kinds = kinds_of(&world, &id).await;
    let (on, off) = (Kind::ApiKeyEnabled, Kind::ApiKeyDisabled);
    assert_eq!(kinds, [Kind::ApiKeyCreated, off, on, off, on, off, Kind::ApiKeyDeleted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_repeating_succeeds_and_appends_nothing() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, _) = minted(&world).await;
    let active = enable(&owner, ACME, &id).await.expect("active already");
    let disabled = disable(&owner, ACME, &id).await.unwrap();
    let after_first = head(&world).await;
    for _ in 0..2 {
        assert_eq!(disable(&owner, ACME, &id).await.unwrap(), disabled);
    }
    // A retry carries the etag of before the first try.
    let retry = DisableApiKeyRequest {
        account_id: ACME.into(),
        key_id: id.clone(),
        etag: active.etag.clone(),
        ..Default::default()
    };
    let answer = owner.keys().disable_api_key(retry).await.expect("a retry succeeds").into_inner();
    assert_eq!(answer.propagation.unwrap().revision.unwrap().number, after_first, "the current revision");
    assert_eq!(head(&world).await, after_first);
    let deleted = delete(&owner, ACME, &id).await.unwrap();
    let after_delete = head(&world).await;
    assert_eq!(after_delete, after_first + 1);
    for _ in 0..2 {
        assert_eq!(delete(&owner, ACME, &id).await.unwrap(), deleted);
    }
    let retry =
        DeleteApiKeyRequest { account_id: ACME.into(), key_id: id.clone(), etag: active.etag, ..Default::default() };
    owner.keys().delete_api_key(retry).await.expect("a retry succeeds");
    assert_eq!(head(&world).await, after_delete);
    assert_eq!(kinds_of(&world, &id).await, [Kind::ApiKeyCreated, Kind::ApiKeyDisabled, Kind::ApiKeyDeleted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_deletion_is_permanent_by_every_path() {
    let world = World::start().await;
    let owner = world.user("owner");
    // Deleted by a manager, by itself, and while disabled.
    let (by_manager, by_itself, disabled) = (minted(&world).await, minted(&world).await, minted(&world).await);
    delete(&owner, ACME, &by_manager.0).await.unwrap();
    revoke(&world.server.caller(&by_itself.1)).await.unwrap();
    disable(&owner, ACME, &disabled.0).await.unwrap();
    delete(&owner, ACME, &disabled.0).await.unwrap();
    let before = head(&world).await;
    for (id, token) in [by_manager, by_itself, disabled] {
        for caller in [&owner, &world.server.operator] {
            let wrong_state = (Code::FailedPrecondition, "WRONG_STATE");
            let refused = enable(caller, ACME, &id).await;
            assert_refused(refused, wrong_state.0, wrong_state.1, "deleted");
            assert_refused(disable(caller, ACME, &id).await, wrong_state.0, wrong_state.1, "deleted");
            assert_refused(rotate(caller, ACME, &id, None).await, wrong_state.0, wrong_state.1, "deleted");
            let edit = ApiKey { key_id: id.clone(), ..key("renamed", &[]) };
            for paths in [&["name"][..], &["*"], &["account_permissions"], &["expire_time"]] {
                assert_refused(
                    update(caller, ACME, edit.clone(), paths).await,
                    wrong_state.0,
                    wrong_state.1,
                    "deleted",
                );
            }
        }
        revoke(&world.server.caller(&token)).await.expect("revoking is idempotent");
        suspend(&world, ACME).await;
        assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Deleted);
        resume(&world, ACME).await;
        assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Deleted);
        assert_eq!(get(&owner, ACME, &id).await.unwrap().state(), State::Deleted);
    }
    assert_eq!(head(&world).await, before + 6, "the suspensions and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_a_deletion_wins_every_race() {
    let world = World::start().await;
    let owner = world.user("owner");
    for round in 0..10 {
        let (id, token) = minted(&world).await;
        disable(&owner, ACME, &id).await.unwrap();
        let edit = ApiKey { key_id: id.clone(), ..key("renamed", &[]) };
        let (deleted, ..) = tokio::join!(
            delete(&owner, ACME, &id),
            enable(&owner, ACME, &id),
            update(&owner, ACME, edit, &["name"]),
            rotate(&owner, ACME, &id, None),
            disable(&owner, ACME, &id),
        );
        deleted.expect("a manager can always delete");
        assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Deleted, "round {round}");
        assert_eq!(get(&owner, ACME, &id).await.unwrap().state(), State::Deleted, "round {round}");
        assert_eq!(kinds_of(&world, &id).await.last(), Some(&Kind::ApiKeyDeleted), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_a_stale_etag_stops_a_change_of_state_and_validate_only_makes_none() {
    let world = World::start().await;
    let owner = world.user("owner");
    let (id, token) = minted(&world).await;
    let stale = get(&owner, ACME, &id).await.unwrap().etag;
    let edit = ApiKey { key_id: id.clone(), ..key("renamed", &[]) };
    let current = update(&owner, ACME, edit, &["name"]).await.unwrap().api_key.unwrap().etag;
    assert_ne!(stale, current);
    let disabling = |etag: &str, validate_only| DisableApiKeyRequest {
        account_id: ACME.into(),
        key_id: id.clone(),
        etag: etag.into(),
        validate_only,
        ..Default::default()
    };
    let deleting = |etag: &str, validate_only| DeleteApiKeyRequest {
        account_id: ACME.into(),
        key_id: id.clone(),
        etag: etag.into(),
        validate_only,
        ..Default::default()
    };
    let before = head(&world).await;
    assert_refused(owner.keys().disable_api_key(disabling(&stale, false)).await, Code::Aborted, "STALE_ETAG", "");
    assert_refused(owner.keys().disable_api_key(disabling(&stale, true)).await, Code::Aborted, "STALE_ETAG", "");
    assert_refused(owner.keys().delete_api_key(deleting(&stale, false)).await, Code::Aborted, "STALE_ETAG", "");
    owner.keys().disable_api_key(disabling(&current, true)).await.expect("it would do");
    owner.keys().delete_api_key(deleting(&current, true)).await.expect("it would do");
    assert_eq!(head(&world).await, before);
    assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Valid);
    let disabled = owner.keys().disable_api_key(disabling(&current, false)).await.unwrap().into_inner();
    let etag = disabled.api_key.unwrap().etag;
    let enabling = |etag: &str, validate_only| EnableApiKeyRequest {
        account_id: ACME.into(),
        key_id: id.clone(),
        etag: etag.into(),
        validate_only,
        ..Default::default()
    };
    assert_refused(owner.keys().enable_api_key(enabling(&current, false)).await, Code::Aborted, "STALE_ETAG", "");
    owner.keys().enable_api_key(enabling(&etag, true)).await.expect("it would do");
    assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Disabled);
    owner.keys().enable_api_key(enabling(&etag, false)).await.expect("the current etag");
    assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Valid);
}
