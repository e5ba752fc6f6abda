//! What memory answers is read and written as bytes: that must give the answers that the slow path gives.

use latchkey::proto::{
    ApiKey, Requirement, Revision, TokenCheck, TokenVerification, VerificationOutcome, VerifyTokenRequest,
    VerifyTokensRequest, api_key::Expiry,
};
use tonic::Status;

use crate::support::{World, calls::*, world::*};

/// A revision that has long been reached: the fast path leaves whatever names one to the slow path.
fn past(long: bool) -> Option<Revision> {
    long.then_some(Revision { epoch: 1, number: 1 })
}

/// Keys in every state, holding in every way.
async fn tokens(world: &World) -> Vec<String> {
    let owner = world.user("owner");
    let mut tokens = vec!["nonsense".to_owned(), String::new(), format!("lk_{}", "0".repeat(49))];
    let both = team_key("both", &["incidents.edit"], &["green", "red"], &["schedules.edit", "catalog.view"]);
    let mut keys = vec![
        key("none", &[]),
        key("account", &["incidents.view", "billing.manage"]),
        team_key("teams", &[], &["red"], &["secrets.use"]),
        ApiKey { expiry: Some(Expiry::Ttl(seconds(600))), ..both.clone() },
        both,
    ];
    keys.extend((0..4).map(|i| key(&format!("changed-{i}"), &["incidents.view"])));
    for (i, key) in keys.iter().enumerate() {
        let minted = create(&owner, ACME, key).await.unwrap();
        let id = minted.api_key.unwrap().key_id;
        tokens.push(minted.token);
        match i {
            5 => tokens.push(rotate(&owner, ACME, &id, None).await.unwrap().token),
            6 => tokens.push(rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap().token),
            7 => _ = disable(&owner, ACME, &id).await.unwrap(),
            8 => _ = delete(&owner, ACME, &id).await.unwrap(),
            _ => {}
        }
    }
    tokens
}

fn requirements() -> Vec<Option<Requirement>> {
    vec![
        None,
        Some(requirement(ACME, "incidents.view", &[])),
        Some(requirement(ACME, "secrets.use", &[])),
        Some(requirement(ACME, "secrets.use", &["red"])),
        Some(requirement(ACME, "schedules.view", &["blue", "green", "red"])),
        Some(requirement("elsewhere", "incidents.view", &[])),
        // Not for the fast path: each of these is refused, naming its field.
        Some(requirement(ACME, "no.such_permission", &[])),
        Some(requirement("", "incidents.view", &[])),
        Some(requirement(ACME, "", &[])),
        Some(requirement(ACME, "incidents.view", &["not a team id"])),
    ]
}

/// What a client sees: an answer, or a code, a message and its details.
fn seen(result: Result<TokenVerification, Status>) -> Result<TokenVerification, (tonic::Code, String, Vec<u8>)> {
    result.map_err(|status| (status.code(), status.message().to_owned(), status.details().to_vec()))
}

async fn one(
    world: &World,
    token: &str,
    requirement: &Option<Requirement>,
    long: bool,
) -> Result<TokenVerification, Status> {
    let message =
        VerifyTokenRequest { token: token.into(), requirement: requirement.clone(), min_revision: past(long) };
    Ok(world.verifier.tokens().verify_token(message).await?.into_inner().verification.expect("an answer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_give_the_same_answer_to_every_question() {
    let world = World::start().await;
    let tokens = tokens(&world).await;
    // Once before, so that memory has them.
    for token in &tokens {
        one(&world, token, &None, true).await.unwrap();
    }
    for requirement in requirements() {
        for token in &tokens {
            let (short, long) =
                (one(&world, token, &requirement, false).await, one(&world, token, &requirement, true).await);
            assert_eq!(seen(short), seen(long), "{requirement:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_give_the_same_answers_to_a_batch() {
    let world = World::start().await;
    let tokens = tokens(&world).await;
    let good = requirements().into_iter().take(6);
    let checks: Vec<_> = good
        .flat_map(|requirement| {
            tokens.iter().map(move |token| TokenCheck { token: token.clone(), requirement: requirement.clone() })
        })
        .collect();
    assert_both_ways_agree(&world, checks).await;
}

/// A requirement that is met again is not read again: so there are more than are remembered, and many that are alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_give_the_same_answers_to_a_batch_of_many_requirements() {
    let world = World::start().await;
    let tokens = tokens(&world).await;
    let permissions = ["secrets.use", "schedules.view", "catalog.view", "incidents.view"];
    let requirement_of = |number: usize| {
        let permission = permissions[number % permissions.len()];
        let others = [format!("team-{}", number % 90), format!("team-{}", number % 7)];
        let teams = [&["red"][..], &["green", &others[0]], &[&others[0], &others[1]], &[&others[0], "red"], &[]];
        let account = if number.is_multiple_of(11) { "elsewhere" } else { ACME };
        requirement(account, permission, teams[number % 5])
    };
    let checks = |count: usize| {
        let check = |number: usize| TokenCheck {
            token: tokens[number % tokens.len()].clone(),
            requirement: Some(requirement_of(number / 3)),
        };
        (0..count).map(check).collect()
    };
    for count in [1, 15, 16, 17, 33, 1_000] {
        assert_both_ways_agree(&world, checks(count)).await;
    }
}

async fn assert_both_ways_agree(world: &World, checks: Vec<TokenCheck>) {
    let ask = async |long: bool| {
        let message = VerifyTokensRequest { checks: checks.clone(), min_revision: past(long) };
        world.verifier.tokens().verify_tokens(message).await.unwrap().into_inner().results
    };
    let long = ask(true).await;
    assert_eq!(long.len(), checks.len());
    assert_eq!(ask(false).await, long);
    let outcomes: Vec<_> = long.iter().map(TokenVerification::outcome).collect();
    for expected in [VerificationOutcome::Valid, VerificationOutcome::PermissionDenied] {
        assert!(checks.len() < 100 || outcomes.contains(&expected), "{outcomes:?}");
    }
}
