//! Outcomes in their precedence, and what each answer tells.

use latchkey::proto::{
    ApiKey, DeleteAccountRequest, TeamScope, TokenVerification, VerificationOutcome as Outcome, VerifyTokenRequest,
    api_key::Expiry,
};
use tonic::Code;

use crate::support::{World, calls::*, world::*};

/// Every ailment that a key can have at once, in the order of precedence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_outcome_that_applies_is_the_answer() {
    let world = World::start().await;
    let owner = world.user("owner");
    let brief = ApiKey { expiry: Some(Expiry::Ttl(millis(250))), ..key("k", &["incidents.view"]) };
    let minted = create(&owner, ACME, &brief).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    let current = rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap().token;
    let denied = Some(requirement(ACME, "billing.manage", &[]));
    let outcomes = async || {
        let retired = world.verify(&minted.token, denied.clone()).await.outcome();
        [retired, world.verify(&current, denied.clone()).await.outcome(), world.verify(&current, None).await.outcome()]
    };
    assert_eq!(outcomes().await, [Outcome::Rotated, Outcome::PermissionDenied, Outcome::Valid]);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(outcomes().await, [Outcome::Rotated, Outcome::Expired, Outcome::Expired]);
    disable(&owner, ACME, &id).await.unwrap();
    assert_eq!(outcomes().await, [Outcome::Rotated, Outcome::Disabled, Outcome::Disabled]);
    suspend(&world, ACME).await;
    assert_eq!(outcomes().await, [Outcome::Rotated, Outcome::AccountSuspended, Outcome::AccountSuspended]);
    delete(&world.server.operator, ACME, &id).await.unwrap();
    assert_eq!(outcomes().await, [Outcome::Deleted; 3]);
    resume(&world, ACME).await;
    assert_eq!(outcomes().await, [Outcome::Deleted; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_accounts_keys_are_deleted() {
    let world = World::start().await;
    let minted =
        create(&world.user("owner"), ACME, &team_key("k", &["incidents.view"], &["red"], &["secrets.use"])).await;
    let token = minted.unwrap().token;
    assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Valid);
    let request = DeleteAccountRequest { account_id: ACME.into(), etag: String::new(), ..Default::default() };
    world.directory.directory().delete_account(request).await.unwrap();
    assert_eq!(world.verify(&token, None).await.outcome(), Outcome::Deleted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_the_token_is_shows_whenever_known_and_what_it_holds_only_when_valid() {
    let world = World::start().await;
    let owner = world.user("owner");
    let expiring = ApiKey {
        expiry: Some(Expiry::Ttl(seconds(600))),
        ..team_key("k", &["incidents.edit"], &["green", "red"], &["schedules.edit"])
    };
    let minted = create(&owner, ACME, &expiring).await.unwrap();
    let (id, token) = (minted.api_key.unwrap().key_id, minted.token);
    let revision = |answer: &TokenVerification| answer.revision.expect("every answer has a revision");
    let valid = world.verify(&token, None).await;
    assert_eq!((valid.key_id.as_str(), valid.account_id.as_str()), (id.as_str(), ACME));
    assert_eq!(valid.account_permissions, strings(&["incidents.view", "incidents.create", "incidents.edit"]));
    let permissions = strings(&["schedules.view", "schedules.edit"]);
    assert_eq!(valid.team_scope, Some(TeamScope { team_ids: strings(&["green", "red"]), permissions }));
    assert!(valid.expire_time.is_some());

    let bare = |answer: &TokenVerification| {
        let expected = TokenVerification {
            outcome: answer.outcome,
            key_id: id.clone(),
            account_id: ACME.into(),
            revision: Some(revision(answer)),
            ..Default::default()
        };
        assert_eq!(*answer, expected);
        answer.outcome()
    };
    let denied = Some(requirement(ACME, "billing.manage", &["red"]));
    assert_eq!(bare(&world.verify(&token, denied).await), Outcome::PermissionDenied);
    let elsewhere = Some(requirement(OTHER, "incidents.view", &[]));
    assert_eq!(bare(&world.verify(&token, elsewhere).await), Outcome::PermissionDenied);
    disable(&owner, ACME, &id).await.unwrap();
    assert_eq!(bare(&world.verify(&token, None).await), Outcome::Disabled);
    suspend(&world, ACME).await;
    assert_eq!(bare(&world.verify(&token, None).await), Outcome::AccountSuspended);
    resume(&world, ACME).await;
    enable(&owner, ACME, &id).await.unwrap();
    rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap();
    assert_eq!(bare(&world.verify(&token, None).await), Outcome::Rotated);
    delete(&owner, ACME, &id).await.unwrap();
    assert_eq!(bare(&world.verify(&token, None).await), Outcome::Deleted);
    // Of what is no token on record nothing is known.
    let nothing = world.verify("nonsense", None).await;
    let revision = nothing.revision;
    let expected = TokenVerification { outcome: Outcome::Malformed.into(), revision, ..Default::default() };
    assert_eq!(nothing, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_holder_of_system_verify_may_ask() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
    let request = VerifyTokenRequest { token: minted.token.clone(), ..Default::default() };
    world.verifier.tokens().verify_token(request.clone()).await.expect("it holds system.verify");
    world.server.operator.tokens().verify_token(request.clone()).await.expect("system.operate implies it");
    let bearer = world.server.caller(&minted.token);
    for caller in [&world.directory, &world.product, &world.auditor, &bearer] {
        let refused = caller.tokens().verify_token(request.clone()).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.verify");
    }
    let refused = world.verifier.for_user(ACME, "owner").tokens().verify_token(request.clone()).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_METADATA", "latchkey-on-behalf-of");
    let refused = world.server.caller("nonsense").tokens().verify_token(request).await;
    assert_refused(refused, Code::Unauthenticated, "BAD_CREDENTIALS", "MALFORMED");
}
