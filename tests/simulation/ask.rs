//! Verifications by every path, each judged as it arrives; and those that never cease in the background.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use latchkey::{
    domain::token::{PlainToken, Prefix},
    proto::{Requirement, StreamVerifyTokensRequest, TokenCheck, VerifyTokenRequest, VerifyTokensRequest},
};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};

use crate::{
    model::{ACCOUNT_PERMISSIONS, Asked, Model, TEAM_PERMISSION, TEAMS, micros_now},
    op::{Dice, REPLICAS},
    support::{Caller, world::ACME},
};

/// Longer than most pauses of a process: what is asked meanwhile is answered afterwards.
const PATIENCE: Duration = Duration::from_secs(3);
const BATCH: usize = 100;

/// What operations, oracle and verifiers share.
pub struct Shared {
    model: Mutex<Model>,
    /// By slot; a slot may be empty.
    channels: Mutex<[Option<Channel>; REPLICAS]>,
    /// Holds `system.verify`.
    pub verifier: Mutex<Option<String>>,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        let channels = Mutex::new([const { None }; REPLICAS]);
        Arc::new(Self { model: Mutex::new(Model::new()), channels, verifier: Mutex::default() })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn place(&self, slot: usize, channel: Option<Channel>) {
        self.channels.lock().expect("nobody panics here")[slot] = channel;
    }

    pub fn caller(&self, slot: usize) -> Option<Caller> {
        let channel = self.channels.lock().expect("nobody panics here")[slot].clone()?;
        let token = self.verifier.lock().expect("nobody panics here").clone()?;
        Some(Caller { channel, token, on_behalf_of: None })
    }
}

/// A well-formed token that nobody minted.
fn invented(dice: &mut Dice) -> String {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    secret.iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
    let prefix = Prefix::parse("prefix", "lk").expect("a prefix");
    PlainToken::mint(&prefix, &secret).reveal().to_owned()
}

/// Questions about every token, or about some at random, and about one that nobody minted.
fn questions(model: &Model, dice: &mut Dice, random: Option<usize>) -> Vec<(Asked, TokenCheck)> {
    let (sent, sent_micros) = (Instant::now(), micros_now());
    let all = model.keys.iter().enumerate();
    let mut tokens: Vec<_> = all.flat_map(|(key, facts)| (0..facts.tokens.len()).map(move |t| (key, t))).collect();
    if let Some(count) = random.filter(|_| !tokens.is_empty()) {
        tokens = (0..count).map(|_| tokens[dice.roll(tokens.len())]).collect();
    }
    let mut asked = Vec::new();
    let mut ask = |key: Option<(usize, usize)>, token: &str, permission, team: Option<&'static str>| {
        let team_ids = team.iter().map(|team| (*team).to_owned()).collect();
        let requirement = Some(Requirement { account_id: ACME.into(), permission: String::from(permission), team_ids });
        let check = TokenCheck { token: token.to_owned(), requirement };
        asked.push((Asked { key, permission, team, sent, sent_micros }, check));
    };
    for (key, place) in tokens {
        let token = &model.keys[key].tokens[place];
        if random.is_some() && dice.roll(3) > 0 {
            ask(Some((key, place)), token, ACCOUNT_PERMISSIONS[dice.roll(4)], None);
        } else if random.is_some() {
            ask(Some((key, place)), token, TEAM_PERMISSION, Some(TEAMS[dice.roll(3)]));
        } else {
            ACCOUNT_PERMISSIONS.iter().for_each(|permission| ask(Some((key, place)), token, permission, None));
            TEAMS.iter().for_each(|team| ask(Some((key, place)), token, TEAM_PERMISSION, Some(team)));
        }
    }
    ask(None, &invented(dice), ACCOUNT_PERMISSIONS[1], None);
    asked
}

/// What an error may be: a fault may fail, and must say so as one (V2).
fn judge_error(shared: &Shared, status: &Status, place: &str) {
    let honest = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
    if !honest.contains(&status.code()) {
        shared.model().violation(format!("V2: {place}: {status:?}"));
    }
}

fn too_late() -> Status {
    Status::deadline_exceeded("the simulation's own patience")
}

/// Asks by one path; true if there was an answer.
pub async fn ask(shared: &Shared, slot: usize, dice: &mut Dice, path: usize, random: Option<usize>) -> bool {
    let Some(caller) = shared.caller(slot) else { return false };
    let (asked, checks): (Vec<_>, Vec<_>) = questions(&shared.model(), dice, random).into_iter().unzip();
    let limit = if random.is_some() { PATIENCE } else { Duration::from_millis(1_200) };
    let place = format!("replica {slot}, {}", ["batch", "stream", "single"][path]);
    let answered = async {
        match path {
            0 => batch(&caller, checks).await,
            1 => stream(&caller, checks).await,
            _ => single(&caller, checks).await,
        }
    };
    match tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| Err(too_late())) {
        Ok(found) => {
            let mut model = shared.model();
            asked.iter().zip(&found).for_each(|(asked, found)| model.judge(asked, found.outcome(), &place));
            true
        }
        Err(status) => {
            judge_error(shared, &status, &place);
            false
        }
    }
}

type Found = Result<Vec<latchkey::proto::TokenVerification>, Status>;

async fn batch(caller: &Caller, checks: Vec<TokenCheck>) -> Found {
    let mut results = Vec::new();
    for checks in checks.chunks(1_000) {
        let request = VerifyTokensRequest { checks: checks.to_vec(), min_revision: None };
        results.extend(caller.tokens().verify_tokens(request).await?.into_inner().results);
    }
    Ok(results)
}

async fn stream(caller: &Caller, checks: Vec<TokenCheck>) -> Found {
    let messages: Vec<_> = checks
        .chunks(20)
        .enumerate()
        .map(|(id, checks)| StreamVerifyTokensRequest {
            correlation_id: id as u64,
            checks: checks.to_vec(),
            min_revision: None,
        })
        .collect();
    let count = messages.len();
    let mut answers = caller.tokens().stream_verify_tokens(tokio_stream::iter(messages)).await?.into_inner();
    let mut parts = vec![Vec::new(); count];
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        if let Some(error) = answer.error {
            return Err(Status::new(Code::from(error.code), error.message));
        }
        parts[answer.correlation_id as usize] = answer.results;
    }
    if parts.iter().any(Vec::is_empty) {
        return Err(Status::unavailable("the stream ended early"));
    }
    Ok(parts.concat())
}

async fn single(caller: &Caller, checks: Vec<TokenCheck>) -> Found {
    let mut results = Vec::new();
    for check in checks.into_iter().take(20) {
        let request = VerifyTokenRequest { token: check.token, requirement: check.requirement, min_revision: None };
        let response = caller.tokens().verify_token(request).await?.into_inner();
        results.push(response.verification.ok_or_else(|| Status::internal("no verification"))?);
    }
    Ok(results)
}

/// Hammers one slot until it is aborted.
pub fn hammer(shared: Arc<Shared>, slot: usize, seed: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut dice = Dice::new(seed ^ (slot as u64) << 32);
        loop {
            let path = [0, 0, 1, 2][dice.roll(4)];
            let answered = ask(&shared, slot, &mut dice, path, Some(BATCH)).await;
            tokio::time::sleep(Duration::from_millis(if answered { 10 } else { 40 })).await;
        }
    })
}
