//! Revisions: answers never go back, cover what was already answered, and can be asked for.

use latchkey::proto::{
    ApiKey, Revision, TokenVerification, VerificationOutcome as Outcome, VerifyTokenRequest, VerifyTokensRequest,
};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{Caller, World, calls::*, world::*};

async fn verify(caller: &Caller, token: &str, min_revision: Option<Revision>) -> Result<TokenVerification, Status> {
    let request = VerifyTokenRequest { token: token.into(), requirement: None, min_revision };
    Ok(caller.tokens().verify_token(request).await?.into_inner().verification.unwrap())
}

fn number(answer: &TokenVerification) -> i64 {
    answer.revision.unwrap().number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_covers_every_mutation_answered_before_it_was_asked_for() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    for round in 0..25 {
        let edit = ApiKey { key_id: id.clone(), ..key(&format!("name {round}"), &[]) };
        let mutation = update(&owner, ACME, edit, &["name"]).await.unwrap().propagation.unwrap().revision.unwrap();
        for token in [minted.token.as_str(), "nonsense"] {
            let answer = verify(&world.verifier, token, None).await.unwrap();
            assert!(answer.revision.unwrap().epoch == mutation.epoch && number(&answer) >= mutation.number);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revisions_of_a_tokens_answers_never_go_back_while_the_log_grows() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    let writer = {
        let owner = world.user("owner");
        tokio::spawn(async move {
            for round in 0..40 {
                let edit = ApiKey { key_id: id.clone(), ..key(&format!("name {round}"), &[]) };
                update(&owner, ACME, edit, &["name"]).await.unwrap();
            }
        })
    };
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..3 {
        let (verifier, token) = (world.verifier.clone(), minted.token.clone());
        readers.spawn(async move {
            // Of each token: one that was just read from the database may be ahead of what is in memory.
            let mut last = [0; 2];
            for i in 0..150 {
                let which = usize::from((i + reader) % 3 == 0);
                let answer = verify(&verifier, [&token, "nonsense"][which], None).await.unwrap();
                assert!(number(&answer) >= last[which], "{} after {}", number(&answer), last[which]);
                last[which] = number(&answer);
            }
        });
    }
    readers.join_all().await;
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_min_revision_that_is_met_is_answered_and_a_future_one_is_unavailable() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap();
    let own = minted.propagation.unwrap().revision.unwrap();
    let answer = verify(&world.verifier, &minted.token, Some(own)).await.unwrap();
    assert!(answer.outcome() == Outcome::Valid && number(&answer) >= own.number);
    verify(&world.verifier, &minted.token, Some(Revision { epoch: 1, number: 0 })).await.expect("the empty log");
    verify(&world.verifier, "nonsense", Some(own)).await.expect("whatever the token is");

    for future in [Revision { number: own.number + 1_000, ..own }, Revision { epoch: own.epoch + 1, number: 0 }] {
        let asked = Instant::now();
        let status = verify(&world.verifier, &minted.token, Some(future)).await.expect_err("no replica knows");
        assert!(status.get_error_details().retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status:?}");
        assert_refused(Err::<(), _>(status), Code::Unavailable, "REVISION_NOT_REACHED", "");
        assert!(asked.elapsed().as_secs() < 5);
    }
    let check = latchkey::proto::TokenCheck { token: minted.token.clone(), requirement: None };
    let future = Some(Revision { number: own.number + 1_000, ..own });
    let request = VerifyTokensRequest { checks: vec![check; 100], min_revision: future };
    let refused = world.verifier.tokens().verify_tokens(request).await;
    assert_refused(refused, Code::Unavailable, "REVISION_NOT_REACHED", "");
    for (epoch, number) in [(-1, 1), (1, -1), (0, 1)] {
        let bad = Revision { epoch, number };
        let refused = verify(&world.verifier, &minted.token, Some(bad)).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "min_revision");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_min_revision_that_comes_in_time_is_waited_for() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &[])).await.unwrap();
    let own = minted.propagation.unwrap().revision.unwrap();
    let next = Revision { number: own.number + 1, ..own };
    let waiting = {
        let (verifier, token) = (world.verifier.clone(), minted.token.clone());
        tokio::spawn(async move { verify(&verifier, &token, Some(next)).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    disable(&owner, ACME, &minted.api_key.unwrap().key_id).await.unwrap();
    let answer = waiting.await.unwrap().expect("it came in time");
    assert_eq!(answer.outcome(), Outcome::Disabled);
    assert!(number(&answer) >= next.number);
}
