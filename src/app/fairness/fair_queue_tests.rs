use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};

use super::*;

const SOON: Duration = Duration::from_millis(20);

fn payer(account: &str, user: &str) -> Payer {
    let user = UserId::parse("user", user).expect("an id");
    Payer { account: AccountId::from_stored(account), caller: CallerId::User(user) }
}

fn turns(at_once: usize, per_account: usize, per_caller: usize, waiting: [usize; 3]) -> FairQueue {
    let bound = |name, max| NamedLimit { name, max };
    FairQueue::new(Bounds {
        at_once,
        share: Share { per_account, per_caller },
        waiting: bound("all", waiting[0]),
        waiting_per_account: bound("account", waiting[1]),
        waiting_per_caller: bound("caller", waiting[2]),
    })
}

fn ample(at_once: usize, per_account: usize, per_caller: usize) -> FairQueue {
    turns(at_once, per_account, per_caller, [1_000; 3])
}

async fn enter(turns: &FairQueue, account: &str, user: &str) -> QueuePermit {
    timeout(SOON, turns.enter(&payer(account, user))).await.expect("at once").expect("room")
}

async fn waits(turns: &FairQueue, account: &str, user: &str) -> bool {
    timeout(SOON, turns.enter(&payer(account, user))).await.is_err()
}

/// Joins the queue, and is in it when this returns.
async fn queue(turns: &FairQueue, account: &'static str, user: &'static str) -> JoinHandle<QueuePermit> {
    let turns = turns.clone();
    let before = turns.queue().waiting;
    let queue = turns.clone();
    let joined = tokio::spawn(async move { turns.enter(&payer(account, user)).await.expect("room") });
    for _ in 0..1_000 {
        if queue.queue().waiting > before {
            return joined;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not wait");
}

fn is_idle(turns: &FairQueue) -> bool {
    let queue = turns.queue();
    queue.running == 0 && queue.waiting == 0 && queue.accounts.is_empty() && queue.order.is_empty()
}

#[tokio::test]
async fn an_account_and_a_caller_have_no_more_than_their_share_while_others_have_theirs() {
    let turns = ample(4, 2, 1);
    let one = enter(&turns, "a", "x").await;
    assert!(waits(&turns, "a", "x").await, "a caller's share");
    let two = enter(&turns, "a", "y").await;
    assert!(waits(&turns, "a", "z").await, "an account's share");
    let others = [enter(&turns, "b", "x").await, enter(&turns, "c", "x").await];
    assert!(waits(&turns, "d", "x").await, "all turns");
    drop(others);
    let three = enter(&turns, "d", "x").await;
    drop((one, two, three));
    assert!(is_idle(&turns));
}

#[tokio::test]
async fn an_account_never_has_all_turns_though_its_share_were_larger() {
    let turns = ample(2, 100, 100);
    let _one = enter(&turns, "a", "x").await;
    assert!(waits(&turns, "a", "y").await);
    let _other = enter(&turns, "b", "x").await;
    let only = ample(1, 100, 100);
    let _one = enter(&only, "a", "x").await;
}

#[tokio::test]
async fn account_system_is_bounded_by_its_callers_alone() {
    let turns = turns(4, 1, 1, [10, 1, 1]);
    let mut running = Vec::new();
    for service in ["p", "q", "r", "s"] {
        running.push(enter(&turns, "system", service).await);
    }
    let waiting = [queue(&turns, "system", "p").await, queue(&turns, "system", "q").await];
    assert!(matches!(
        turns.enter(&payer("system", "p")).await,
        Err(AppError::ShareExceeded(NamedLimit { name: "caller", .. }))
    ));
    waiting.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn accounts_take_turns_and_within_one_its_callers() {
    let turns = ample(1, 1, 1);
    let first = enter(&turns, "a", "x").await;
    let mut waiting = Vec::new();
    for (account, user) in [("a", "x"), ("a", "x"), ("a", "x"), ("a", "y"), ("b", "x"), ("b", "x")] {
        waiting.push(((account, user), queue(&turns, account, user).await));
    }
    drop(first);
    let mut order = Vec::new();
    while !waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let Some(place) = waiting.iter().position(|(_, turn)| turn.is_finished()) {
            let (who, turn) = waiting.remove(place);
            order.push(who);
            drop(turn.await.expect("granted"));
        }
    }
    assert_eq!(order, [("a", "x"), ("b", "x"), ("a", "y"), ("b", "x"), ("a", "x"), ("a", "x")]);
    assert!(is_idle(&turns));
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue_and_its_turn_is_the_next_ones() {
    let turns = ample(1, 1, 1);
    let first = enter(&turns, "a", "x").await;
    let gone = queue(&turns, "a", "x").await;
    let next = queue(&turns, "a", "x").await;
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(turns.queue().waiting, 1);
    drop(first);
    drop(timeout(SOON, next).await.expect("soon").expect("granted"));
    // Granted, and never taken.
    let first = enter(&turns, "a", "x").await;
    let payer = payer("b", "x");
    let waiting = turns.wait(&payer, true).expect("room");
    drop(first);
    assert!(waits(&turns, "c", "x").await);
    drop(waiting);
    drop(enter(&turns, "c", "x").await);
    assert!(is_idle(&turns));
}

#[tokio::test]
async fn so_many_wait_and_no_more_and_the_bound_is_named_but_who_need_not_wait_is_never_refused() {
    let turns = turns(3, 1, 1, [3, 2, 1]);
    let refused = async |account, user| match turns.enter(&payer(account, user)).await {
        Err(AppError::ShareExceeded(bound)) => bound.name,
        _ => "",
    };
    let _a = enter(&turns, "a", "x").await;
    let mut waiting = vec![queue(&turns, "a", "x").await];
    assert_eq!(refused("a", "x").await, "caller");
    waiting.push(queue(&turns, "a", "y").await);
    assert_eq!(refused("a", "z").await, "account");
    let _b = enter(&turns, "b", "x").await;
    waiting.push(queue(&turns, "b", "x").await);
    let _c = enter(&turns, "c", "x").await;
    assert_eq!(refused("d", "x").await, "all");
    let watch = payer("a", "w");
    assert!(timeout(SOON, turns.enter_anyway(&watch)).await.is_err(), "bounded in another way, it waits");
    waiting.iter().for_each(JoinHandle::abort);
}
