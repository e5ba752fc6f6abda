use super::flight::{Flights, Joined, Leader, Unsettled, Waiter};

fn lead((waiter, leader): Joined<u8, u32>) -> (Waiter<u32>, Leader<u8, u32>) {
    (waiter, leader.expect("leads"))
}

#[tokio::test]
async fn those_who_ask_for_one_token_share_a_query() {
    let flights = Flights::new(8);
    let (first, leader) = lead(flights.join(1, false).expect("room"));
    let (second, none) = flights.join(1, false).expect("room");
    assert!(none.is_none());
    leader.complete(5);
    assert_eq!((first.result().await, second.result().await), (Some(5), Some(5)));
}

#[tokio::test]
async fn v1_a_caller_that_joins_after_a_result_joins_a_new_flight() {
    let flights = Flights::new(8);
    let (first, leader) = lead(flights.join(1, false).expect("room"));
    leader.complete(5);
    assert_eq!(first.result().await, Some(5));
    let (next, leader) = lead(flights.join(1, false).expect("room"));
    drop(leader);
    assert_eq!(next.result().await, None);
}

#[tokio::test]
async fn an_abandoned_flight_strands_no_waiter() {
    let flights = Flights::new(8);
    let (_, leader) = lead(flights.join(1, false).expect("room"));
    let (waiting, _) = flights.join(1, false).expect("room");
    drop(leader);
    assert_eq!(waiting.result().await, None);
    lead(flights.join(1, false).expect("room"));
}

#[test]
fn flights_are_bounded_and_some_are_kept_for_known_tokens() {
    let flights = Flights::<u8, u32>::new(4);
    let leaders: Vec<_> = (0..3).map(|i| flights.join(i, false).expect("room")).collect();
    assert_eq!(flights.join(9, false).err(), Some(Unsettled::Full));
    let known = flights.join(9, true).expect("kept free");
    assert_eq!(flights.join(8, true).err(), Some(Unsettled::Full));
    // Joining takes no room.
    assert!(flights.join(0, false).is_ok());
    drop((leaders, known));
    assert!(flights.join(8, false).is_ok());
}

#[tokio::test]
async fn v1_a_result_of_before_the_call_is_not_fresh_and_the_next_one_is() {
    let flights = Flights::new(8);
    let (_, earlier) = lead(flights.join(1, false).expect("room"));
    let judged = std::sync::Mutex::new(Vec::new());
    let waiting = flights.settle(
        1,
        false,
        |leader| leader.into_iter().for_each(|leader| leader.complete(6)),
        |result, fresh| {
            judged.lock().expect("no panic").push((*result, fresh));
            fresh.then_some(*result)
        },
    );
    let (settled, ()) = tokio::join!(waiting, async { earlier.complete(5) });
    assert_eq!(settled, Ok(6));
    assert_eq!(*judged.lock().expect("no panic"), [(5, false), (6, true)]);
}

#[tokio::test]
async fn a_caller_gives_up_after_a_few_abandoned_flights() {
    let flights = Flights::<u8, u32>::new(8);
    let loads = std::cell::Cell::new(0);
    let load = |leader| {
        loads.set(loads.get() + 1);
        drop(leader);
    };
    assert_eq!(flights.settle(1, false, load, |result, _| Some(*result)).await, Err(Unsettled::Abandoned));
    assert_eq!(loads.get(), 3);
}
