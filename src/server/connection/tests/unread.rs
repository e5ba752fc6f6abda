use super::*;

const LIST: ResponseEstimate = ResponseEstimate { bytes: 40, own: false };
const BATCH: ResponseEstimate = ResponseEstimate { bytes: 10, own: true };

fn used(unread: &UnreadBudgets) -> [usize; 3] {
    [0, 1, 2].map(|index| unread.0[index].used.load(Relaxed))
}

#[tokio::test]
async fn a_reservation_becomes_the_messages_size_and_ends_with_its_last_part() {
    let unread = UnreadBudgets::new(100, ByteBudget::new(100), ByteBudget::new(100));
    let reserved = unread.reserve(LIST).await.unwrap();
    assert_eq!(used(&unread), [40; 3]);
    let mut message = reserved.into_message(Bytes::from_static(&[7; 60]), ());
    assert_eq!(used(&unread), [60; 3], "more than was thought");
    let first = message.split_to(1);
    drop(message);
    assert_eq!(used(&unread), [60; 3], "all of it is in memory");
    drop(first);
    assert_eq!(used(&unread), [0; 3]);
    let batch = unread.reserve(BATCH).await.unwrap();
    assert_eq!(used(&unread), [10, 0, 0]);
    drop(batch);
}

#[tokio::test]
async fn a_call_waits_for_room_and_goes_on_when_there_is_some() {
    let process = ByteBudget::new(320);
    let (one, other) = (
        UnreadBudgets::new(100, process.for_a_peer(), process.clone()),
        UnreadBudgets::new(100, process.for_a_peer(), process),
    );
    let (first, second) = (one.reserve(LIST).await.unwrap(), one.reserve(LIST).await.unwrap());
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.reserve(LIST).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    // Another peer has its share.
    let others = (other.reserve(LIST).await.unwrap(), other.reserve(LIST).await.unwrap());
    drop(first);
    let third = waiting.await.unwrap().unwrap();
    // One that is given up gives back what it had, of all budgets.
    let given_up = tokio::time::timeout(Duration::from_millis(50), other.reserve(LIST));
    assert!(given_up.await.is_err());
    drop((second, third, others));
    assert_eq!((used(&one), used(&other)), ([0; 3], [0; 3]));
}

#[tokio::test]
async fn of_one_peer_only_so_many_calls_wait_and_others_wait_as_before() {
    let process = ByteBudget::new(1_000);
    let (peer, other) = (process.for_a_peer(), process.for_a_peer());
    let connection = || UnreadBudgets::new(1_000, peer.clone(), process.clone());
    let all = connection().reserve(ResponseEstimate { bytes: 250, own: false }).await.unwrap();
    let waiting: Vec<_> = (0..PEER_WAITING_CALLS_MAX)
        .map(|_| {
            let unread = connection();
            tokio::spawn(async move { unread.reserve(LIST).await.map(drop) })
        })
        .collect();
    while peer.waiting.load(Relaxed) < PEER_WAITING_CALLS_MAX {
        tokio::task::yield_now().await;
    }
    let refused = tokio::time::timeout(Duration::from_millis(100), connection().reserve(LIST)).await;
    assert_eq!(refused.expect("at once").err(), Some(BudgetExhausted));
    // A call that may run at once does not count as waiting, and another peer has its own budget.
    assert!(connection().reserve(BATCH).await.is_ok());
    assert!(UnreadBudgets::new(1_000, other, process.clone()).reserve(LIST).await.is_ok());
    drop(all);
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert!(connection().reserve(LIST).await.is_ok());
}

#[tokio::test]
async fn a_response_larger_than_the_budget_may_use_all_of_it() {
    let unread = UnreadBudgets::new(8, ByteBudget::new(8), ByteBudget::new(8));
    let large = unread.reserve(LIST).await.unwrap();
    assert!(unread.is_over());
    drop(large);
    assert!(!unread.is_over());
}

#[test]
fn only_answers_that_may_be_large_are_estimated() {
    for path in ["/latchkey.v1.TokenService/VerifyToken", "/grpc.health.v1.Health/Check", "*", "/", ""] {
        assert_eq!(estimate(path), None, "{path}");
    }
    for path in ["/latchkey.v1.ApiKeyService/ListApiKeys", "/latchkey.v1.EventService/ListEvents"] {
        assert_eq!(estimate(path), Some(ResponseEstimate { bytes: LIST_BYTES, own: false }), "{path}");
    }
}
