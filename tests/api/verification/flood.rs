//! A flood of well-formed tokens that nobody minted: it is turned away before it costs the database much, and what is
//! turned away is never called UNKNOWN, for nobody knows (V2).

use std::time::Duration;

use futures_util::future::join_all;
use latchkey::proto::{TokenCheck, TokenVerification, VerificationOutcome as Outcome};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::batches::verify;
use crate::{
    calls::{invented, refused},
    support::{World, world::*},
};

const BATCH: u64 = 100;
/// So many batches are under way at once.
const BATCHES: u64 = 8;
/// What a replica asks the database for at once, and every second, of tokens that are not on record: the defaults.
const AT_ONCE: u64 = 2_000;
const A_SECOND: u64 = 500;
const LIMIT: Duration = Duration::from_secs(20);

/// The n-th batch of tokens that nobody minted.
fn invented_batch(batch: u64) -> Vec<TokenCheck> {
    let numbers = batch * BATCH..(batch + 1) * BATCH;
    numbers.map(|number| TokenCheck { token: invented(number), requirement: None }).collect()
}

fn all_unknown(results: &[TokenVerification]) -> bool {
    results.len() as u64 == BATCH && results.iter().all(|result| result.outcome() == Outcome::Unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_a_flood_of_unknown_tokens_is_turned_away_and_leaves_good_ones_alone() {
    let world = World::start().await;
    let good = create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap().token;
    assert_eq!(world.verify(&good, None).await.outcome(), Outcome::Valid);

    let flood = async {
        let started = Instant::now();
        let mut asked = 0;
        for round in 0.. {
            let batches = (0..BATCHES).map(|batch| verify(&world, invented_batch(round * BATCHES + batch)));
            let mut refused = None;
            for result in join_all(batches).await {
                match result {
                    Ok(results) => {
                        assert!(all_unknown(&results), "{results:?}");
                        asked += BATCH;
                    }
                    Err(status) => refused = Some(status),
                }
            }
            if let Some(refused) = refused {
                return (asked, started.elapsed().as_secs() + 1, refused);
            }
            assert!(started.elapsed() < LIMIT, "{asked} were asked for, slowly, and none was turned away");
        }
        unreachable!("it ends by then")
    };
    // A good one that is in memory is answered all the while.
    let good_ones = async {
        loop {
            assert_eq!(world.verify(&good, None).await.outcome(), Outcome::Valid);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (asked, seconds, refused) = tokio::select! { flood = flood => flood, () = good_ones => unreachable!() };
    assert!(asked <= AT_ONCE + A_SECOND * seconds, "{asked} went on to the database");
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
    refused_as_overload(Err(refused));
    assert_eq!(world.verify(&good, None).await.outcome(), Outcome::Valid);
    assert!(all_unknown(&verify(&world, invented_batch(0)).await.unwrap()), "an absence that is remembered");

    // And once it is over, the database is asked again.
    let over = Instant::now();
    loop {
        match verify(&world, invented_batch(u64::from(u32::MAX))).await {
            Ok(results) => break assert!(all_unknown(&results)),
            Err(refused) => refused_as_overload(Err(refused)),
        }
        assert!(over.elapsed() < LIMIT, "it is still turned away");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn refused_as_overload(result: Result<(), Status>) {
    refused(result, Code::ResourceExhausted, "OVERLOADED", "");
}
