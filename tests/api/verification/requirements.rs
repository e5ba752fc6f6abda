//! Requirements: what a token must be good for.

use latchkey::proto::{Requirement, TokenVerification, VerificationOutcome as Outcome, VerifyTokenRequest};
use tonic::{Code, Status};

use crate::support::{World, calls::*, world::*};

async fn verify(world: &World, token: &str, requirement: Requirement) -> Result<TokenVerification, Status> {
    let request = VerifyTokenRequest { token: token.into(), requirement: Some(requirement), min_revision: None };
    Ok(world.verifier.tokens().verify_token(request).await?.into_inner().verification.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_and_permission_are_mandatory_and_teams_well_formed() {
    let world = World::start().await;
    let token = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap().token;
    let many: Vec<String> = (0..1_001).map(|i| format!("team{i}")).collect();
    let bad = [
        (requirement("", "incidents.view", &[]), "requirement.account_id"),
        (requirement("a/b", "incidents.view", &[]), "requirement.account_id"),
        (requirement(ACME, "", &[]), "requirement.permission"),
        (requirement(ACME, "Not A Name", &[]), "requirement.permission"),
        (requirement(ACME, "incidents.view", &["red", ""]), "requirement.team_ids[1]"),
        (Requirement { team_ids: many.clone(), ..requirement(ACME, "incidents.view", &[]) }, "requirement.team_ids"),
        (Requirement::default(), "requirement.account_id"),
    ];
    for (requirement, field) in bad {
        // A malformed request is refused whatever the token is.
        for token in [token.as_str(), "nonsense", ""] {
            let refused = verify(&world, token, requirement.clone()).await;
            assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
        }
    }
    let most = Requirement { team_ids: many[..1_000].to_vec(), ..requirement(ACME, "incidents.view", &[]) };
    assert_eq!(verify(&world, &token, most).await.unwrap().outcome(), Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_permission_is_the_askers_mistake_and_a_retired_one_is_denied() {
    let world = World::start().await;
    let token = create(&world.user("owner"), ACME, &key("k", &["postmortems.manage"])).await.unwrap().token;
    for token in [token.as_str(), "nonsense"] {
        let refused = verify(&world, token, requirement(ACME, "no.such", &[])).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "requirement.permission");
    }
    let outcome =
        async || verify(&world, &token, requirement(ACME, "postmortems.manage", &[])).await.unwrap().outcome();
    assert_eq!(outcome().await, Outcome::Valid);
    change_permission(&world, "postmortems.manage", |permission| permission.retired = true).await.unwrap();
    assert_eq!(outcome().await, Outcome::PermissionDenied);
    // A permission is known from the answer of the call that made it on.
    let mut next = catalogue(&world).await;
    let name = "brand.new".to_owned();
    next.permissions.push(latchkey::proto::Permission { name, ..Default::default() });
    apply(&world.server.operator, next).await.unwrap();
    let answer = verify(&world, &token, requirement(ACME, "brand.new", &[])).await.unwrap();
    assert_eq!(answer.outcome(), Outcome::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_good_in_its_own_account_only() {
    let world = World::start().await;
    let token =
        create(&world.user("owner"), ACME, &team_key("k", &["incidents.view"], &["red"], &["secrets.use"])).await;
    let token = token.unwrap().token;
    let outcome = async |account: &str, permission: &str, teams: &[&str]| {
        verify(&world, &token, requirement(account, permission, teams)).await.unwrap().outcome()
    };
    assert_eq!(outcome(ACME, "incidents.view", &[]).await, Outcome::Valid);
    assert_eq!(outcome(ACME, "secrets.use", &["red"]).await, Outcome::Valid);
    for account in [OTHER, "no-such", "system", "ACME"] {
        assert_eq!(outcome(account, "incidents.view", &[]).await, Outcome::PermissionDenied, "{account}");
        // The other account has a team `red` too: it is another one.
        assert_eq!(outcome(account, "secrets.use", &["red"]).await, Outcome::PermissionDenied, "{account}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn teams_are_met_by_any_of_them_or_by_an_account_level_holding() {
    let world = World::start().await;
    let granted = team_key("k", &["catalog.view"], &["green", "red"], &["schedules.edit"]);
    let token = create(&world.user("owner"), ACME, &granted).await.unwrap().token;
    for (permission, teams, expected) in [
        ("schedules.edit", &["red"][..], Outcome::Valid),
        ("schedules.view", &["green"], Outcome::Valid),
        ("schedules.edit", &["blue", "red"], Outcome::Valid),
        ("schedules.edit", &["no-such", "green", "blue"], Outcome::Valid),
        ("schedules.edit", &["blue"], Outcome::PermissionDenied),
        ("schedules.edit", &["no-such"], Outcome::PermissionDenied),
        ("schedules.edit", &[], Outcome::PermissionDenied),
        ("catalog.view", &[], Outcome::Valid),
        ("catalog.view", &["blue"], Outcome::Valid),
        ("catalog.view", &["no-such"], Outcome::Valid),
        ("catalog.edit", &["red"], Outcome::PermissionDenied),
        // Its own permission on its own teams, not the other's.
        ("catalog.view", &["red"], Outcome::Valid),
        ("incidents.view", &["red"], Outcome::PermissionDenied),
    ] {
        assert_eq!(world.outcome(&token, permission, teams).await, expected, "{permission} {teams:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_the_reach_of_system_operate_is_never_used_in_a_verification() {
    let world = World::start().await;
    let operator = &world.server.operator.token;
    for (account, permission) in [(ACME, "incidents.view"), ("system", "incidents.view"), (OTHER, "api_keys.manage")] {
        let answer = verify(&world, operator, requirement(account, permission, &[])).await.unwrap();
        assert_eq!(answer.outcome(), Outcome::PermissionDenied, "{account} {permission}");
    }
    // What it holds itself it holds, in its own account.
    for permission in ["system.operate", "system.verify", "system.impersonate"] {
        let own = verify(&world, operator, requirement("system", permission, &[])).await.unwrap();
        assert_eq!(own.outcome(), Outcome::Valid, "{permission}");
        let elsewhere = verify(&world, operator, requirement(ACME, permission, &[])).await.unwrap();
        assert_eq!(elsewhere.outcome(), Outcome::PermissionDenied, "{permission}");
    }
    let other = verify(&world, &world.verifier.token, requirement("system", "system.operate", &[])).await.unwrap();
    assert_eq!(other.outcome(), Outcome::PermissionDenied);
}
