//! Open load: questions are sent when they are due, whether or not earlier ones were answered, and a span begins
//! when its question was due. Threads keep the time: a timer of the runtime may be a millisecond late.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use latchkey::proto::{TokenCheck, VerificationOutcome as Outcome, VerifyTokenRequest, VerifyTokensRequest};
use tokio::{runtime::Handle, task::JoinSet};

use crate::{keys::token, named, support::Caller};

pub const GOOD_A_SECOND: u64 = 5_000;
pub const UNKNOWN_A_SECOND: u64 = 50_000;
/// Unknown tokens a call.
const BATCH: u64 = 100;

/// Good tokens, one a call, evenly spread.
pub struct Good {
    caller: Caller,
    requests: Vec<VerifyTokenRequest>,
}

/// Tokens that no server minted, each once, evenly spread.
pub struct Flood {
    caller: Caller,
    requests: Vec<VerifyTokensRequest>,
}

/// How a flood was answered.
pub struct Answers {
    /// From the first call to the last answer.
    pub took: Duration,
    /// Tokens by answer.
    pub tokens: BTreeMap<&'static str, u64>,
}

/// Verifies keys in one call.
pub async fn verify(caller: Caller, numbers: Range<u64>) {
    let answer = caller.tokens().verify_tokens(batch(numbers)).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| result.outcome() == Outcome::Valid));
}

fn batch(numbers: Range<u64>) -> VerifyTokensRequest {
    let check = |number| TokenCheck { token: token(number).reveal().to_owned(), requirement: None };
    VerifyTokensRequest { checks: numbers.map(check).collect(), ..Default::default() }
}

/// Runs `send` once for each `due` moment, on a thread of its own; what each gave.
async fn paced<F>(count: u64, gap: Duration, mut send: impl FnMut(u64, Instant) -> F + Send + 'static) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let handle = Handle::current();
    let paced = std::thread::spawn(move || {
        let mut sent = JoinSet::new();
        let started = Instant::now();
        for place in 0..count {
            let due = started + gap * place as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.spawn_on(send(place, due), &handle);
        }
        sent
    });
    let sent = tokio::task::spawn_blocking(|| paced.join().unwrap()).await.unwrap();
    sent.join_all().await
}

// === impl Good ===

impl Good {
    /// The first so many keys.
    pub fn new(caller: Caller, count: u64) -> Self {
        let request = |number| VerifyTokenRequest { token: token(number).reveal().to_owned(), ..Default::default() };
        Self { caller, requests: (0..count).map(request).collect() }
    }

    /// Asks for so long; the spans of all.
    pub async fn run(self, time: Duration) -> Vec<Duration> {
        let Self { caller, requests } = self;
        let client = caller.tokens();
        paced(GOOD_A_SECOND * time.as_secs(), Duration::from_secs(1) / GOOD_A_SECOND as u32, move |place, due| {
            let (mut client, request) = (client.clone(), requests[place as usize % requests.len()].clone());
            async move {
                let answer = client.verify_token(request).await.unwrap().into_inner();
                let span = due.elapsed();
                assert_eq!(answer.verification.unwrap().outcome(), Outcome::Valid);
                span
            }
        })
        .await
    }
}

// === impl Flood ===

impl Flood {
    /// So many tokens from a number on.
    pub fn new(caller: Caller, from: u64, tokens: u64) -> Self {
        let batches = (from..from + tokens).step_by(BATCH as usize);
        Self { caller, requests: batches.map(|from| batch(from..from + BATCH)).collect() }
    }

    /// Sends them all.
    pub async fn run(self) -> Answers {
        let Self { caller, requests } = self;
        let client = caller.tokens();
        let count = requests.len() as u64;
        let gap = Duration::from_secs(1) * BATCH as u32 / UNKNOWN_A_SECOND as u32;
        let mut requests = requests.into_iter();
        let started = Instant::now();
        let codes = paced(count, gap, move |_, _| {
            let (mut client, request) = (client.clone(), requests.next().unwrap());
            async move {
                let answer = client.verify_tokens(request).await;
                if let Ok(answer) = &answer {
                    assert!(answer.get_ref().results.iter().all(|result| result.outcome() == Outcome::Unknown));
                }
                named(answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok))
            }
        })
        .await;
        let took = started.elapsed();
        let mut tokens = BTreeMap::new();
        codes.into_iter().for_each(|answer| *tokens.entry(answer).or_default() += BATCH);
        Answers { took, tokens }
    }
}
