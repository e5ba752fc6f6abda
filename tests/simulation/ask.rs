//! Verifications by every path, each judged as it arrives; and those that never cease in the background.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use latchkey::{
    domain::token::{PlainToken, Prefix},
    proto::{Requirement, Revision, StreamVerifyTokensRequest, TokenCheck, VerifyTokenRequest, VerifyTokensRequest},
};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};

use crate::{
    model::{ACCOUNT_PERMISSIONS, Asked, Model, TEAM_PERMISSION, TEAMS, micros_now},
    op::REPLICAS,
    support::{Caller, calls::requests, random::Random, world::ACME},
};

/// Longer than most pauses of a process: what is asked meanwhile is answered afterwards.
const HAMMER_PATIENCE: Duration = Duration::from_secs(3);
/// The oracle looks after every operation: who cannot answer is not waited for.
const LOOK_PATIENCE: Duration = Duration::from_millis(400);
/// When all is healed.
const CLOSING_PATIENCE: Duration = Duration::from_secs(3);
const BATCH: usize = 50;
const HAMMER_PAUSE: Duration = Duration::from_millis(50);

/// The three ways to ask.
#[derive(Clone, Copy, Debug)]
pub enum Path {
    Batch,
    Stream,
    Single,
}

/// What is asked, and how.
#[derive(Clone, Copy)]
pub struct Ask {
    pub path: Path,
    /// So many at random; else everything about every token.
    random: Option<usize>,
    /// Nothing older than what some answer has told already.
    fresh: bool,
    /// What holds must be VALID.
    exact: bool,
    patience: Duration,
}

impl Ask {
    fn some(dice: &mut Random) -> Self {
        let (path, fresh) = (Path::roll(dice), dice.below(4) == 0);
        Self { path, fresh, random: Some(BATCH), exact: false, patience: HAMMER_PATIENCE }
    }

    /// Everything, now.
    pub fn all(dice: &mut Random) -> Self {
        let (path, fresh) = (Path::roll(dice), dice.below(4) == 0);
        Self { path, fresh, random: None, exact: false, patience: LOOK_PATIENCE }
    }

    /// Everything, of replicas that are whole.
    pub fn healed(path: Path, exact: bool) -> Self {
        Self { path, fresh: exact, random: None, exact, patience: CLOSING_PATIENCE }
    }
}

impl Path {
    fn roll(dice: &mut Random) -> Self {
        [Self::Batch, Self::Batch, Self::Stream, Self::Single][dice.below(4)]
    }
}

/// What operations, oracle and verifiers share.
pub struct Shared {
    model: Mutex<Model>,
    /// By slot; a slot may be empty.
    channels: Mutex<[Option<Channel>; REPLICAS]>,
    /// Holds `system.verify`.
    pub verifier: Mutex<Option<String>>,
    /// Whether a slot's replica may say that its answers are stale.
    pub may_be_stale: [bool; REPLICAS],
}

impl Shared {
    pub fn new(may_be_stale: [bool; REPLICAS]) -> Arc<Self> {
        let channels = Mutex::new([const { None }; REPLICAS]);
        Arc::new(Self { model: Mutex::new(Model::new()), channels, verifier: Mutex::default(), may_be_stale })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn place(&self, slot: usize, channel: Option<Channel>) {
        self.channels.lock().expect("no holder panics")[slot] = channel;
    }

    pub fn caller(&self, slot: usize) -> Option<Caller> {
        let channel = self.channels.lock().expect("no holder panics")[slot].clone()?;
        let token = self.verifier.lock().expect("no holder panics").clone()?;
        Some(Caller { channel, token, on_behalf_of: None })
    }
}

/// A well-formed token that no server minted.
fn invented(dice: &mut Random) -> String {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    secret.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
    let prefix = Prefix::parse("prefix", "lk").expect("a prefix");
    PlainToken::mint(&prefix, &secret).reveal().to_owned()
}

/// Questions about every token, or about some at random, and about one that no server minted.
fn questions(model: &Model, dice: &mut Random, ask: Ask) -> Vec<(Asked, TokenCheck)> {
    let (random, min_revision) = (ask.random, ask.fresh.then_some(model.known));
    let (sent, sent_micros) = (Instant::now(), micros_now());
    let all = model.keys.iter().enumerate();
    let mut tokens: Vec<_> = all.flat_map(|(key, facts)| (0..facts.tokens.len()).map(move |t| (key, t))).collect();
    if let Some(count) = random.filter(|_| !tokens.is_empty()) {
        tokens = (0..count).map(|_| tokens[dice.below(tokens.len())]).collect();
    }
    let mut asked = Vec::new();
    let mut ask = |key: Option<(usize, usize)>, token: &str, permission, team: Option<&'static str>| {
        let team_ids = team.iter().map(|team| (*team).to_owned()).collect();
        let requirement = Some(Requirement { account_id: ACME.into(), permission: String::from(permission), team_ids });
        let check = TokenCheck { token: token.to_owned(), requirement };
        asked.push((Asked { key, permission, team, sent, sent_micros, min_revision }, check));
    };
    for (key, place) in tokens {
        let token = &model.keys[key].tokens[place];
        if random.is_some() && dice.below(3) > 0 {
            ask(Some((key, place)), token, ACCOUNT_PERMISSIONS[dice.below(4)], None);
        } else if random.is_some() {
            ask(Some((key, place)), token, TEAM_PERMISSION, Some(TEAMS[dice.below(3)]));
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
    // Nobody's answer, but the client library's word that the connection broke or was closed, with whatever code:
    // only such a status has a source.
    let broken = std::error::Error::source(status).is_some();
    let honest = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
    if !broken && !honest.contains(&status.code()) {
        shared.model().violation(format!("V2: {place}: {status:?}"));
    }
}

fn too_late() -> Status {
    Status::deadline_exceeded("the simulation's own patience")
}

/// Asks by one path; true if there was an answer.
pub async fn ask(shared: &Shared, slot: usize, dice: &mut Random, ask: Ask) -> bool {
    let Some(caller) = shared.caller(slot) else { return false };
    let (asked, checks): (Vec<_>, Vec<_>) = questions(&shared.model(), dice, ask).into_iter().unzip();
    let min = asked[0].min_revision.map(|(epoch, number)| Revision { epoch, number });
    let place = format!("replica {slot}, {:?}", ask.path);
    let answered = async {
        match ask.path {
            Path::Batch => batch(&caller, checks, min).await,
            Path::Stream => stream(&caller, checks, min).await,
            Path::Single => single(&caller, checks, min).await,
        }
    };
    match tokio::time::timeout(ask.patience, answered).await.unwrap_or_else(|_| Err(too_late())) {
        Ok(found) => {
            let mut model = shared.model();
            for (asked, found) in asked.iter().zip(&found) {
                if found.stale && !shared.may_be_stale[slot] {
                    model.violation(format!("V2: {place}: stale, where nothing may be"));
                }
                match ask.exact {
                    true => model.judge_exactly(asked, found, &place),
                    false => model.judge(asked, found, &place),
                }
            }
            true
        }
        Err(status) => {
            judge_error(shared, &status, &place);
            false
        }
    }
}

type Found = Result<Vec<latchkey::proto::TokenVerification>, Status>;

async fn batch(caller: &Caller, checks: Vec<TokenCheck>, min_revision: Option<Revision>) -> Found {
    let mut results = Vec::new();
    for checks in checks.chunks(1_000) {
        let request = VerifyTokensRequest { min_revision, ..requests::verify_tokens(checks.to_vec()) };
        results.extend(caller.tokens().verify_tokens(request).await?.into_inner().results);
    }
    Ok(results)
}

async fn stream(caller: &Caller, checks: Vec<TokenCheck>, min_revision: Option<Revision>) -> Found {
    let messages: Vec<_> = checks
        .chunks(20)
        .enumerate()
        .map(|(id, checks)| StreamVerifyTokensRequest {
            correlation_id: id as u64,
            checks: checks.to_vec(),
            min_revision,
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

async fn single(caller: &Caller, checks: Vec<TokenCheck>, min_revision: Option<Revision>) -> Found {
    let mut results = Vec::new();
    for check in checks.into_iter().take(20) {
        let request = VerifyTokenRequest { min_revision, ..requests::verify_token(&check.token, check.requirement) };
        let response = caller.tokens().verify_token(request).await?.into_inner();
        results.push(response.verification.ok_or_else(|| Status::internal("no verification"))?);
    }
    Ok(results)
}

/// Hammers one slot until it is aborted.
pub fn hammer(shared: Arc<Shared>, slot: usize, seed: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut dice = Random::new(seed ^ (slot as u64) << 32);
        loop {
            let some = Ask::some(&mut dice);
            let answered = ask(&shared, slot, &mut dice, some).await;
            tokio::time::sleep(if answered { HAMMER_PAUSE } else { 2 * HAMMER_PAUSE }).await;
        }
    })
}
