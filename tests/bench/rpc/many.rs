//! Batches and streams by the project's own client. Every answer is checked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use latchkey::proto::{
    StreamVerifyTokensRequest, TokenCheck, TokenVerification, VerificationOutcome, VerifyTokensRequest,
};
use tokio::sync::mpsc::channel;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::Caller;

/// Batches that each connection has unanswered.
const BATCHES: usize = 2;
/// Messages that each stream has unanswered, of so many checks.
const MESSAGES: usize = 16;
pub const CHECKS: usize = 32;

/// Checks that are asked for one portion after the other, going round: no two calls at once ask for the same.
#[derive(Clone)]
pub struct Checks {
    all: Arc<[TokenCheck]>,
    next: Arc<AtomicUsize>,
}

impl Checks {
    pub fn new(all: Vec<TokenCheck>) -> Self {
        Self { all: all.into(), next: Arc::default() }
    }

    /// The next so many.
    pub fn next(&self, size: usize) -> &[TokenCheck] {
        let portions = self.all.len() / size;
        let portion = self.next.fetch_add(size, Ordering::Relaxed) / size % portions;
        &self.all[portion * size..][..size]
    }
}

/// Verifies that many tokens over these connections, in batches, and gives the rate a second.
pub async fn batches(callers: &[Caller], checks: &Checks, size: usize, tokens: usize) -> f64 {
    let tasks = callers.len() * BATCHES;
    let calls = tokens / size / tasks;
    assert_eq!(calls * size * tasks, tokens, "none is left over");
    let started = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (caller, checks) = (callers[task % callers.len()].clone(), checks.clone());
            tokio::spawn(async move {
                let mut client = caller.tokens();
                for _ in 0..calls {
                    let request = VerifyTokensRequest { checks: checks.next(size).to_vec(), min_revision: None };
                    assert_valid(&client.verify_tokens(request).await.unwrap().into_inner().results, size);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    tokens as f64 / started.elapsed().as_secs_f64()
}

/// The same over one stream a connection.
pub async fn streams(callers: &[Caller], checks: &Checks, tokens: usize) -> f64 {
    let messages = tokens / CHECKS / callers.len();
    assert_eq!(messages * CHECKS * callers.len(), tokens, "none is left over");
    let started = Instant::now();
    let tasks: Vec<_> =
        callers.iter().map(|caller| tokio::spawn(stream(caller.clone(), checks.clone(), messages))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    tokens as f64 / started.elapsed().as_secs_f64()
}

async fn stream(caller: Caller, checks: Checks, messages: usize) {
    let (sender, receiver) = channel(MESSAGES);
    let message = |number: usize| StreamVerifyTokensRequest {
        correlation_id: number as u64,
        checks: checks.next(CHECKS).to_vec(),
        min_revision: None,
    };
    for number in 0..MESSAGES {
        assert!(sender.send(message(number)).await.is_ok(), "the client is there");
    }
    let mut answers = caller.tokens().stream_verify_tokens(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    for number in MESSAGES..messages + MESSAGES {
        let answer = answers.message().await.unwrap().expect("an answer to each message");
        assert!(answer.error.is_none(), "{answer:?}");
        assert_valid(&answer.results, CHECKS);
        if number < messages {
            assert!(sender.send(message(number)).await.is_ok(), "the stream goes on");
        }
    }
    drop(sender);
    assert!(answers.message().await.unwrap().is_none(), "it ends when all is answered");
}

fn assert_valid(results: &[TokenVerification], count: usize) {
    assert_eq!(results.len(), count);
    assert!(results.iter().all(|result| result.outcome() == VerificationOutcome::Valid));
}
