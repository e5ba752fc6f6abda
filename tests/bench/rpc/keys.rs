//! What is verified: keys made through the API, each with eight permissions and two teams, and what is asked of them.

use latchkey::proto::{
    Account, ApiKey, BatchUpsertTeamsRequest, CreateApiKeyRequest, Requirement, Team, TokenCheck, UpsertAccountRequest,
    VerificationOutcome, VerifyTokenRequest, VerifyTokensRequest,
};
use prost::Message;

use crate::support::{
    Caller,
    world::{ACME, apply_example_catalogue, create, key, team_key},
};

pub const KEYS: usize = 1_000;
const TEAMS: usize = 20;
const MINTERS: usize = 8;
const ACCOUNT_PERMISSIONS: [&str; 4] = ["incidents.view", "settings.view", "workflows.view", "heartbeats.ping"];
const TEAM_PERMISSIONS: [&str; 4] = ["catalog.view", "schedules.view", "on_call.view", "escalations.create"];

/// A question for each key: for even ones about the account, for odd ones about a team.
pub struct Keys {
    pub checks: Vec<TokenCheck>,
    /// A service's, which may verify.
    pub verifier: String,
}

impl Keys {
    /// Makes them, as a caller who may do anything.
    pub async fn make(operator: &Caller) -> Self {
        apply_example_catalogue(operator).await;
        let account = Account { account_id: ACME.into(), display_name: ACME.into(), ..Default::default() };
        let request = UpsertAccountRequest { account: Some(account), ..Default::default() };
        operator.directory().upsert_account(request).await.unwrap();
        let teams = (0..TEAMS).map(|team| Team { team_id: name(team), display_name: name(team), ..Default::default() });
        let request = BatchUpsertTeamsRequest { account_id: ACME.into(), teams: teams.collect(), ..Default::default() };
        operator.directory().batch_upsert_teams(request).await.unwrap();
        let verifier = create(operator, "system", &key("verifier", &["system.verify"])).await.unwrap().token;
        let minters: Vec<_> = (0..MINTERS).map(|first| tokio::spawn(mint(operator.clone(), first))).collect();
        let mut minted = Vec::new();
        for minter in minters {
            minted.push(minter.await.unwrap());
        }
        let checks = (0..KEYS).map(|number| minted[number % MINTERS][number / MINTERS].clone()).collect();
        Self { checks, verifier }
    }

    /// The unary question: one key's, about the account.
    pub fn question(&self) -> VerifyTokenRequest {
        let TokenCheck { token, requirement } = self.checks[0].clone();
        VerifyTokenRequest { token, requirement, min_revision: None }
    }

    /// Has a server verify every key, so that it holds them in memory, and gives the size of its answer to the unary
    /// question.
    pub async fn settle(&self, server: &Caller) -> usize {
        let request = VerifyTokensRequest { checks: self.checks.clone(), min_revision: None };
        let results = server.tokens().verify_tokens(request).await.unwrap().into_inner().results;
        assert_eq!(results.len(), KEYS);
        assert!(results.iter().all(|result| result.outcome() == VerificationOutcome::Valid), "{:?}", results[0]);
        let answer = server.tokens().verify_token(self.question()).await.unwrap().into_inner();
        assert_eq!(answer.verification.as_ref().unwrap().outcome(), VerificationOutcome::Valid, "{answer:?}");
        answer.encoded_len()
    }
}

/// Makes one minter's share of the keys, and the question about each.
async fn mint(operator: Caller, first: usize) -> Vec<TokenCheck> {
    let mut checks = Vec::new();
    for number in (first..KEYS).step_by(MINTERS) {
        let teams = [name(number % TEAMS), name((number + 1 + number / TEAMS % (TEAMS - 1)) % TEAMS)];
        let teams: Vec<&str> = teams.iter().map(String::as_str).collect();
        let api_key = team_key(&format!("k{number}"), &ACCOUNT_PERMISSIONS, &teams, &TEAM_PERMISSIONS);
        let token = mint_one(&operator, api_key).await;
        let (permission, team_ids) = if number % 2 == 0 {
            (ACCOUNT_PERMISSIONS[1], vec![])
        } else {
            (TEAM_PERMISSIONS[1], vec![teams[0].into()])
        };
        let requirement = Requirement { account_id: ACME.into(), permission: permission.into(), team_ids };
        checks.push(TokenCheck { token, requirement: Some(requirement) });
    }
    checks
}

async fn mint_one(operator: &Caller, api_key: ApiKey) -> String {
    let request = CreateApiKeyRequest {
        account_id: ACME.into(),
        api_key: Some(api_key),
        skip_propagation_wait: true,
        ..Default::default()
    };
    operator.keys().create_api_key(request).await.unwrap().into_inner().token
}

fn name(team: usize) -> String {
    format!("team-{team:02}")
}
