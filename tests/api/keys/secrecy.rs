//! K4, K5: a token is shown once; a key outlives the user who made it.

use latchkey::proto::{
    ApiKey, DeleteUserRequest, GetIdentityRequest, ListApiKeysRequest, ListEventsRequest, UserState,
    VerificationOutcome as Outcome, VerifyTokenRequest,
};
use prost::Message;
use tonic::{Code, Status};

use crate::support::{Caller, World, calls::*, world::*};

/// What may not be seen: a token, or enough of it to find the rest.
fn assert_hidden(message: &[u8], token: &str, place: &str) {
    let secret = &token.as_bytes()[token.find('_').unwrap() + 1..];
    for part in secret.windows(16) {
        assert!(!message.windows(16).any(|window| window == part), "{place} shows a token");
    }
}

fn assert_status_hides(status: &Status, token: &str, place: &str) {
    assert_hidden(status.message().as_bytes(), token, place);
    assert_hidden(status.details(), token, place);
}

fn hint(token: &str) -> String {
    format!("{}_…{}", token.split('_').next().unwrap(), &token[token.len() - 4..])
}

async fn identity(bearer: &Caller) -> ApiKey {
    let response = bearer.tokens().get_identity(GetIdentityRequest {}).await.unwrap().into_inner();
    response.api_key.expect("the bearer's key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_the_token_appears_once_and_a_stored_key_shows_a_hint() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let api_key = minted.api_key.unwrap();
    let rotated = rotate(&owner, ACME, &api_key.key_id, None).await.unwrap();
    let tokens = [minted.token.clone(), rotated.token.clone()];
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(api_key.token_hint, hint(&tokens[0]));
    assert_eq!(rotated.api_key.as_ref().unwrap().token_hint, hint(&tokens[1]), "the current one's");

    let id = &api_key.key_id;
    let edit = ApiKey { key_id: id.clone(), ..key("renamed", &[]) };
    let all = ListEventsRequest { page_size: 1_000, ..Default::default() };
    let list = ListApiKeysRequest { account_id: ACME.into(), ..Default::default() };
    let everything: Vec<(&str, Vec<u8>)> = vec![
        ("create's key", api_key.encode_to_vec()),
        ("rotate's key", rotated.api_key.unwrap().encode_to_vec()),
        ("get", get(&owner, ACME, id).await.unwrap().encode_to_vec()),
        ("list", crate::support::calls::list(&owner, list).await.unwrap().encode_to_vec()),
        ("identity", identity(&world.server.caller(&tokens[1])).await.encode_to_vec()),
        ("verify", world.verify(&tokens[1], None).await.encode_to_vec()),
        ("update", update(&owner, ACME, edit, &["name"]).await.unwrap().encode_to_vec()),
        ("disable", disable(&owner, ACME, id).await.unwrap().encode_to_vec()),
        ("enable", enable(&owner, ACME, id).await.unwrap().encode_to_vec()),
        ("delete", delete(&owner, ACME, id).await.unwrap().encode_to_vec()),
        ("events", world.auditor.events().list_events(all).await.unwrap().into_inner().encode_to_vec()),
    ];
    for (place, message) in &everything {
        tokens.iter().for_each(|token| assert_hidden(message, token, place));
    }
    // The search would find one.
    let shown = std::panic::catch_unwind(|| assert_hidden(minted.token.as_bytes(), &minted.token, ""));
    assert!(shown.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_a_token_put_in_the_wrong_place_is_not_echoed() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let (token, key_id) = (&minted.token, &minted.api_key.as_ref().unwrap().key_id);
    let refused = |result: Result<(), Status>, place: &str| {
        let status = result.expect_err(place);
        assert_status_hides(&status, token, place);
    };
    refused(get(&owner, ACME, token).await.map(|_| ()), "key_id");
    refused(get(&owner, token, key_id).await.map(|_| ()), "account_id");
    refused(create(&owner, ACME, &key("k", &[token])).await.map(|_| ()), "account_permissions");
    refused(create(&owner, ACME, &team_key("k", &[], &[token], &["secrets.use"])).await.map(|_| ()), "team_ids");
    refused(create(&owner, ACME, &team_key("k", &[], &["red"], &[token])).await.map(|_| ()), "team permissions");
    let edit = ApiKey { key_id: key_id.clone(), ..Default::default() };
    refused(update(&owner, ACME, edit, &[token]).await.map(|_| ()), "update_mask");
    let list = ListApiKeysRequest { account_id: ACME.into(), page_token: token.clone(), ..Default::default() };
    refused(crate::support::calls::list(&owner, list).await.map(|_| ()), "page_token");
    let requirement = Some(requirement(ACME, token, &[]));
    let request = VerifyTokenRequest { token: token.clone(), requirement, min_revision: None };
    refused(world.verifier.tokens().verify_token(request).await.map(|_| ()), "requirement");
    let on_behalf_of = world.product.for_user(ACME, token);
    refused(get(&on_behalf_of, ACME, key_id).await.map(|_| ()), "latchkey-on-behalf-of");
    let team = latchkey::proto::Team { team_id: token.clone(), ..Default::default() };
    let team = latchkey::proto::UpsertTeamRequest {
        account_id: ACME.into(),
        team: Some(team),
        validate_only: false,
        ..Default::default()
    };
    refused(world.directory.directory().upsert_team(team).await.map(|_| ()), "a team's id");
    let bearer = world.server.caller(&format!("{token}x"));
    refused(get(&bearer, ACME, key_id).await.map(|_| ()), "authorization");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k5_a_key_outlives_its_creators_demotion_deactivation_and_deletion() {
    let world = World::start().await;
    world.make_user(ACME, "maker", "admin", &[], UserState::Active).await;
    let minted = create(&world.user("maker"), ACME, &key("k", &["billing.manage"])).await.unwrap();
    let key_id = minted.api_key.unwrap().key_id;
    let holds = async |step: &str| {
        assert_eq!(world.outcome(&minted.token, "billing.manage", &[]).await, Outcome::Valid, "{step}");
        let creator = get(&world.user("owner"), ACME, &key_id).await.unwrap().creator.expect("a creator");
        assert_eq!((creator.account_id.as_str(), creator.user_id.as_str()), (ACME, "maker"), "{step}");
        assert!(creator.key_id.starts_with("key_"), "the service's key: {}", creator.key_id);
    };
    holds("at first").await;
    world.make_user(ACME, "maker", "standard", &[], UserState::Active).await;
    holds("demoted").await;
    let refused = create(&world.user("maker"), ACME, &key("k", &["billing.manage"])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
    world.make_user(ACME, "maker", "standard", &[], UserState::Deactivated).await;
    holds("deactivated").await;
    assert_refused(get(&world.user("maker"), ACME, &key_id).await, Code::Unauthenticated, "BAD_USER", "");
    let request = DeleteUserRequest {
        account_id: ACME.into(),
        user_id: "maker".into(),
        etag: String::new(),
        ..Default::default()
    };
    world.directory.directory().delete_user(request).await.unwrap();
    holds("deleted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k5_a_key_outlives_the_key_that_made_it() {
    let world = World::start().await;
    let maker =
        create(&world.user("owner"), ACME, &key("maker", &["api_keys.manage", "incidents.view"])).await.unwrap();
    let minted = create(&world.server.caller(&maker.token), ACME, &key("k", &["incidents.view"])).await.unwrap();
    let maker_id = maker.api_key.unwrap().key_id;
    delete(&world.user("owner"), ACME, &maker_id).await.unwrap();
    assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
    let creator = get(&world.user("owner"), ACME, &minted.api_key.unwrap().key_id).await.unwrap().creator.unwrap();
    assert_eq!((creator.key_id, creator.user_id), (maker_id, String::new()));
}
