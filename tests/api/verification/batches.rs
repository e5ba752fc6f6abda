//! VerifyTokens: many questions, answered in order, all or none.

use latchkey::proto::{
    Requirement, TokenCheck, TokenVerification, VerificationOutcome as Outcome, VerifyTokensRequest,
};
use tonic::{Code, Status};

use crate::support::{World, calls::*, world::*};

fn check(token: &str, requirement: Option<Requirement>) -> TokenCheck {
    TokenCheck { token: token.into(), requirement }
}

pub async fn verify(world: &World, checks: Vec<TokenCheck>) -> Result<Vec<TokenVerification>, Status> {
    let request = VerifyTokensRequest { checks, min_revision: None };
    Ok(world.verifier.tokens().verify_tokens(request).await?.into_inner().results)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_every_check_in_its_place() {
    let world = World::start().await;
    let owner = world.user("owner");
    let mut keys = Vec::new();
    for i in 0..5 {
        let minted = create(&owner, ACME, &key(&format!("k{i}"), &["incidents.view"])).await.unwrap();
        keys.push((minted.api_key.unwrap().key_id, minted.token));
    }
    disable(&owner, ACME, &keys[4].0).await.unwrap();
    let denied = Some(requirement(ACME, "billing.manage", &[]));
    let mut checks = vec![check("nonsense", None), check(&keys[0].1, denied)];
    checks.extend(keys.iter().map(|(_, token)| check(token, Some(requirement(ACME, "incidents.view", &[])))));
    let results = verify(&world, checks).await.unwrap();
    let outcomes: Vec<_> = results.iter().map(TokenVerification::outcome).collect();
    let valid = Outcome::Valid;
    assert_eq!(
        outcomes,
        [Outcome::Malformed, Outcome::PermissionDenied, valid, valid, valid, valid, Outcome::Disabled]
    );
    let ids: Vec<_> = results[2..].iter().map(|result| result.key_id.clone()).collect();
    assert_eq!(ids, keys.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_1_to_1000_checks() {
    let world = World::start().await;
    let token = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap().token;
    let one = check(&token, Some(requirement(ACME, "incidents.view", &[])));
    let results = verify(&world, vec![one.clone(); 1_000]).await.expect("1,000 fit");
    assert_eq!(results.len(), 1_000);
    assert!(results.iter().all(|result| result.outcome() == Outcome::Valid));
    assert_eq!(verify(&world, vec![one.clone()]).await.unwrap().len(), 1);
    for checks in [vec![], vec![one; 1_001]] {
        assert_refused(verify(&world, checks).await, Code::InvalidArgument, "INVALID_FIELD", "checks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_names_its_check_and_nothing_is_answered() {
    let world = World::start().await;
    let token = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap().token;
    let good = check(&token, None);
    for (bad, field) in [
        (requirement(ACME, "no.such", &[]), "checks[2].requirement.permission"),
        (requirement(ACME, "", &[]), "checks[2].requirement.permission"),
        (requirement("", "incidents.view", &[]), "checks[2].requirement.account_id"),
        (requirement(ACME, "incidents.view", &["a/b"]), "checks[2].requirement.team_ids[0]"),
    ] {
        let checks = vec![good.clone(), good.clone(), check(&token, Some(bad)), good.clone()];
        assert_refused(verify(&world, checks).await, Code::InvalidArgument, "INVALID_FIELD", field);
    }
    let unknown = check(&token, Some(requirement(ACME, "no.such", &[])));
    for field in ["checks[0].requirement.permission", "checks[3].requirement.permission"] {
        let checks = vec![unknown.clone(), good.clone(), good.clone(), unknown.clone()];
        assert_refused(verify(&world, checks).await, Code::InvalidArgument, "INVALID_FIELD", field);
    }
    let request = VerifyTokensRequest { checks: vec![good], min_revision: None };
    let refused = world.auditor.tokens().verify_tokens(request).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.verify");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_unknown_tokens_does_not_hurt_a_good_one() {
    let world = World::start().await;
    let token = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap().token;
    let elsewhere = World::start().await;
    let mut checks = Vec::new();
    for _ in 0..20 {
        checks.push(check(&create(&elsewhere.user("owner"), ACME, &key("k", &[])).await.unwrap().token, None));
    }
    checks.push(check(&token, None));
    for _ in 0..3 {
        let results = verify(&world, checks.clone()).await.unwrap();
        assert!(results[..20].iter().all(|result| result.outcome() == Outcome::Unknown));
        assert_eq!(results[20].outcome(), Outcome::Valid);
    }
}
