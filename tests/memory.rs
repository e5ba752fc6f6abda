//! What churn leaves behind in a replica's memory: nothing that grows with it.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail a test where they stand, as tests do")]

mod support;

use latchkey::proto::{ApiKey, TeamScope, VerificationOutcome as Outcome};
use support::{
    Caller,
    calls::{self, requests},
    ground::{Ground, START_LIMIT},
    process::{Process, Signal},
    world::{ACME, apply_example_catalogue, create, key},
};

const TEAMS: usize = 1_000;
/// Before memory is first looked at: pools, buffers and the allocator have what they need by then.
const WARM_UP: usize = 100;
const EDITS: usize = 500;
/// Each edit leaves a list of teams of about this size behind.
const LIST_BYTES: usize = TEAMS * (64 + 32);
/// Half of what the edits leave behind: more than the cache keeps of it, and noise.
const GROWTH_BYTES_MAX: usize = EDITS * LIST_BYTES / 2;

fn resident_bytes(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// An account with so many teams, by the operator.
async fn make_account(operator: &Caller, teams: &[String]) {
    apply_example_catalogue(operator).await;
    operator.directory().upsert_account(requests::upsert_account(ACME, ACME)).await.unwrap();
    for teams in teams.chunks(500) {
        let request = requests::upsert_teams(ACME, teams.iter().map(|team| requests::team(team, "a team")));
        operator.directory().batch_upsert_teams(request).await.unwrap();
    }
}

/// Edits a key, so that it holds something on all teams but one, and has the replica read it again.
async fn edit(operator: &Caller, key: &ApiKey, token: &str, teams: &[String], without: usize) {
    let team_ids = teams.iter().enumerate().filter(|(place, _)| *place != without).map(|(_, id)| id.clone()).collect();
    let team_scope = Some(TeamScope { team_ids, permissions: vec!["catalog.view".into()] });
    let changed = ApiKey { key_id: key.key_id.clone(), team_scope, ..Default::default() };
    calls::update(operator, ACME, changed, &["team_scope"]).await.unwrap();
    let answer = operator
        .tokens()
        .verify_token(requests::verify_token(token, None))
        .await
        .unwrap()
        .into_inner()
        .verification
        .unwrap();
    assert_eq!(answer.outcome(), Outcome::Valid);
    assert_eq!(answer.team_scope.unwrap().team_ids.len(), TEAMS - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_a_key_of_a_thousand_teams_leave_nothing_behind() {
    let ground = Ground::new("memory", vec![]).await;
    let (process, operator) = ground.serve(&ground.bootstrap(), "info").await;
    let teams: Vec<_> = (0..TEAMS).map(|number| format!("{number:064}")).collect();
    make_account(&operator, &teams).await;
    let minted = create(&operator, ACME, &key("wide", &[])).await.unwrap();
    let wide = minted.api_key.unwrap();
    for number in 0..WARM_UP {
        edit(&operator, &wide, &minted.token, &teams, number % TEAMS).await;
    }
    let before = resident_bytes(&process);
    for number in WARM_UP..WARM_UP + EDITS {
        edit(&operator, &wide, &minted.token, &teams, number % TEAMS).await;
    }
    let grown = resident_bytes(&process).saturating_sub(before);
    println!("{EDITS} edits of a key of {TEAMS} teams: {grown} bytes more");
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
    process.signal(Signal::TERM);
    process.wait(START_LIMIT).success();
}
