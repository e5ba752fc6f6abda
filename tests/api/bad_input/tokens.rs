//! Tokens of every wrong shape, and questions that cannot be answered.

use latchkey::proto::{
    GetIdentityRequest, Requirement, Revision, TokenCheck, VerificationOutcome as Outcome, VerifyTokenRequest,
    VerifyTokensRequest,
};
use tonic::Status;

use super::*;
use crate::support::world::*;

/// Texts that are no token, made from one that is.
fn wrong_shapes(token: &str) -> Vec<String> {
    let (prefix, rest) = token.split_once('_').expect("a token");
    let last = if token.ends_with('0') { '1' } else { '0' };
    let mut shapes = vec![
        String::new(),
        " ".into(),
        "_".into(),
        "lk_".into(),
        "lk".into(),
        format!("Bearer {token}"),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("{token}0"),
        token[..token.len() - 1].to_owned(),
        format!("{}{last}", &token[..token.len() - 1]),
        token.to_uppercase(),
        rest.to_owned(),
        format!("_{rest}"),
        format!("a_{rest}"),
        format!("LK_{rest}"),
        format!("l-k_{rest}"),
        format!("{}_{rest}", "a".repeat(13)),
        format!("{prefix}__{rest}"),
        format!("{prefix}-{rest}"),
        // Another prefix, the checksum of this one.
        format!("zz_{rest}"),
        format!("{prefix}_{}é", &rest[..rest.len() - 2]),
        format!("{prefix}_{}\0", &rest[..rest.len() - 1]),
        "é".repeat(52),
        "x".repeat(100_000),
    ];
    // One character changed anywhere breaks the checksum.
    for i in (3..token.len()).step_by(7) {
        let mut bytes = token.as_bytes().to_vec();
        bytes[i] = if bytes[i] == b'a' { b'b' } else { b'a' };
        shapes.push(String::from_utf8(bytes).expect("ASCII"));
    }
    shapes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_no_token_is_malformed_and_no_error() {
    let world = World::start().await;
    let made = mint(&world.user("owner"), &key("k", &["billing.manage"])).await.expect("a key");
    assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::Valid);
    let shapes = wrong_shapes(&made.token);
    for shape in &shapes {
        let answer = world.verify(shape, None).await;
        assert_eq!(answer.outcome(), Outcome::Malformed, "{shape:?}");
        assert!(answer.key_id.is_empty() && answer.account_permissions.is_empty());
    }
    let checks = shapes.iter().map(|shape| TokenCheck { token: shape.clone(), requirement: None }).collect();
    let request = VerifyTokensRequest { checks, min_revision: None };
    let results = world.verifier.tokens().verify_tokens(request).await.expect("answers").into_inner().results;
    assert!(results.iter().all(|result| result.outcome() == Outcome::Malformed));
    assert_eq!(world.verify(&unknown_token(), None).await.outcome(), Outcome::Unknown);
    // As a caller, it is nobody; what HTTP does not carry, or trims, cannot be sent.
    let sent = |shape: &&String| shape.is_ascii() && shape.trim() == shape.as_str() && !shape.contains('\0');
    for shape in shapes.iter().filter(sent).filter(|shape| shape.len() < 1_000) {
        let caller = world.server.caller(shape);
        unauthenticated(caller.tokens().get_identity(GetIdentityRequest {}).await, "BAD_CREDENTIALS");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_question_is_refused_by_field_and_place() {
    let world = World::start().await;
    let token = world.product.token.clone();
    let needs = |account: &str, permission: &str, teams: &[&str]| Requirement {
        account_id: account.into(),
        permission: permission.into(),
        team_ids: strings(teams),
    };
    for (requirement, field) in [
        (needs("", "billing.manage", &[]), "account_id"),
        (needs("a b", "billing.manage", &[]), "account_id"),
        (needs(ACME, "", &[]), "permission"),
        (needs(ACME, "NO", &[]), "permission"),
        (needs(ACME, "no.such", &[]), "permission"),
        (needs(ACME, "secrets.use", &["red", "a b"]), "team_ids[1]"),
        (needs(ACME, "secrets.use", &["red", ""]), "team_ids[1]"),
        (Requirement { team_ids: vec!["red".into(); 1_001], ..needs(ACME, "secrets.use", &[]) }, "team_ids"),
    ] {
        let request =
            VerifyTokenRequest { token: token.clone(), requirement: Some(requirement.clone()), min_revision: None };
        bad_field(world.verifier.tokens().verify_token(request).await, &format!("requirement.{field}"));
        let good = TokenCheck { token: token.clone(), requirement: None };
        let bad = TokenCheck { requirement: Some(requirement), ..good.clone() };
        let request = VerifyTokensRequest { checks: vec![good, bad], min_revision: None };
        let batch: Result<_, Status> = world.verifier.tokens().verify_tokens(request).await;
        bad_field(batch, &format!("checks[1].requirement.{field}"));
    }
    let checks = |count: usize| vec![TokenCheck { token: token.clone(), requirement: None }; count];
    for count in [0, 1_001] {
        let request = VerifyTokensRequest { checks: checks(count), min_revision: None };
        bad_field(world.verifier.tokens().verify_tokens(request).await, "checks");
    }
    let request = VerifyTokensRequest { checks: checks(1_000), min_revision: None };
    let results = world.verifier.tokens().verify_tokens(request).await.expect("a thousand").into_inner().results;
    assert_eq!(results.len(), 1_000);
    for (epoch, number) in [(-1, 0), (1, -1), (0, 42)] {
        let revision = Revision { epoch, number };
        let request = VerifyTokenRequest { token: token.clone(), requirement: None, min_revision: Some(revision) };
        bad_field(world.verifier.tokens().verify_token(request).await, "min_revision");
    }
}
