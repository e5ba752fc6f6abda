//! A flood of well-formed tokens that no server minted: it is turned away before it costs the database much, and what is
//! turned away is never called UNKNOWN, since that was not read (V2). And a flood of tokens that have ended, of which a
//! tenant can make any number: the same, and they leave few events behind (K8).

use std::time::Duration;

use futures_util::future::join_all;
use latchkey::proto::{
    EventKind as Kind, TokenCheck, TokenVerification, VerificationOutcome as Outcome, VerifyTokenRequest,
};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::batches::verify;
use crate::{
    calls::{events_after, invented, mint_in, refused, rotate_with},
    support::{Caller, Server, World, world::*},
};

const BATCH: u64 = 100;
/// So many batches are under way at once.
const BATCHES: u64 = 8;
/// What a replica asks the database for at once, and every second, of tokens that are not on record: the defaults.
const AT_ONCE: u64 = 2_000;
const A_SECOND: u64 = 500;
const LIMIT: Duration = Duration::from_secs(20);

/// The n-th batch of tokens that no server minted.
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

/// The tokens that so many rotations of a key ended. No caller has presented them yet.
async fn ended(owner: &Caller, account: &str, rotations: usize) -> Vec<String> {
    let mut minted = mint_in(owner, account, &key("k", &[])).await.unwrap();
    let mut ended = Vec::new();
    for _ in 0..rotations {
        let next = rotate_with(owner, account, minted.id(), Some(0)).await.unwrap();
        ended.push(std::mem::replace(&mut minted, next).token);
    }
    ended
}

async fn present(world: &World, token: &str) -> Result<Outcome, Status> {
    let request = VerifyTokenRequest { token: token.into(), ..Default::default() };
    Ok(world.verifier.tokens().verify_token(request).await?.into_inner().verification.unwrap().outcome())
}

/// How many events tell of presented tokens of an account.
async fn recorded(world: &World, account: &str) -> usize {
    let events = events_after(world, 0).await;
    let is_one =
        |event: &&latchkey::proto::Event| event.kind() == Kind::RotatedTokenPresented && event.account_id == account;
    events.iter().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_a_flood_of_ended_tokens_is_turned_away_and_leaves_good_ones_alone() {
    const AT_ONCE: usize = 8;
    const FREE_A_SECOND: usize = 1;
    const A_SECOND: usize = 5;
    const ENDED: usize = 60;
    let change = |flags: latchkey::settings::Flags| {
        let flags = flags.with("misses_in_flight_max", "4").with("unknown_loads_burst_max", AT_ONCE.to_string());
        let flags = flags.with("unknown_loads_per_second_max", A_SECOND.to_string());
        flags.with("ended_loads_per_second_max", FREE_A_SECOND.to_string())
    };
    let world = World::on(Server::start_with(change).await).await;
    let owner = world.user("owner");
    let good = create(&owner, ACME, &key("good", &[])).await.unwrap().token;
    let ended = ended(&owner, ACME, ENDED).await;
    assert_eq!(present(&world, &good).await.unwrap(), Outcome::Valid);
    let started = Instant::now();
    let mut asked = 0;
    for token in &ended {
        match present(&world, token).await {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Rotated);
                asked += 1;
            }
            Err(refused) => refused_as_overload(Err(refused)),
        }
        assert_eq!(present(&world, &good).await.unwrap(), Outcome::Valid);
    }
    let seconds = started.elapsed().as_secs() as usize + 1;
    let bound = AT_ONCE + A_SECOND * seconds + FREE_A_SECOND * (4 + seconds);
    assert!((AT_ONCE..=bound).contains(&asked), "{asked} went on to the database in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_ended_tokens_leave_a_bounded_number_of_events_however_many_there_are() {
    const EVENTS_MAX: usize = 5;
    let change = |flags: latchkey::settings::Flags| {
        flags.with("late_events_per_account_hour_max", EVENTS_MAX.to_string()).with("late_events_per_hour_max", "8")
    };
    let world = World::on(Server::start_with(change).await).await;
    let (many, one) = (ended(&world.user("owner"), ACME, 40).await, world.product.for_user(OTHER, "owner"));
    let one = ended(&one, OTHER, 1).await;
    for _ in 0..2 {
        for token in &many {
            assert_eq!(present(&world, token).await.unwrap(), Outcome::Rotated);
        }
    }
    assert_eq!(present(&world, &one[0]).await.unwrap(), Outcome::Rotated);
    // The other account's comes last, and is recorded all the same.
    let since = Instant::now();
    while recorded(&world, OTHER).await == 0 {
        assert!(since.elapsed() < LIMIT, "it is not recorded");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((recorded(&world, ACME).await, recorded(&world, OTHER).await), (EVENTS_MAX, 1));
}

fn refused_as_overload(result: Result<(), Status>) {
    refused(result, Code::ResourceExhausted, "OVERLOADED", "");
}
