use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt, future, stream};
use tokio::sync::Notify;

use super::*;

fn parts<'a>(
    messages: impl Stream<Item = Result<u32, Status>> + Send + 'a,
    answer: impl Fn(u32) -> BoxFuture<'a, Result<u32, Status>> + Send + 'a,
) -> BidirectionalParts<'a, u32, u32> {
    BidirectionalParts {
        messages: messages.boxed(),
        ended: future::pending().boxed(),
        answer: Box::new(answer),
        in_flight_max: 4,
    }
}

#[tokio::test]
async fn every_message_is_answered_and_the_end_is_the_clients() {
    let stream = answers(parts(stream::iter((0..100).map(Ok)), |n| future::ready(Ok(n)).boxed()));
    let mut answered: Vec<u32> = stream.map(|answer| answer.expect("answered")).collect().await;
    answered.sort_unstable();
    assert_eq!(answered, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_empty_stream_ends() {
    assert_eq!(answers(parts(stream::empty(), |n| future::ready(Ok(n)).boxed())).count().await, 0);
}

#[tokio::test]
async fn a_slow_answer_does_not_hold_up_the_others() {
    let open = Arc::new(Notify::new());
    let waiting = Arc::clone(&open);
    let stream = answers(parts(stream::iter((0..3).map(Ok)), move |n| {
        let waiting = Arc::clone(&waiting);
        async move {
            if n == 0 {
                waiting.notified().await;
            }
            Ok(n)
        }
        .boxed()
    }));
    let mut stream = Box::pin(stream);
    assert_eq!(stream.next().await.expect("open").expect("answered"), 1);
    assert_eq!(stream.next().await.expect("open").expect("answered"), 2);
    open.notify_one();
    assert_eq!(stream.next().await.expect("open").expect("answered"), 0);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_asks_no_more_before_it_is_answered_gets_its_answers_and_an_end() {
    let open = Arc::new(Notify::new());
    let waiting = Arc::clone(&open);
    let mut stream = Box::pin(answers(parts(stream::iter([Ok(0)]), move |n| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.notified().await;
            Ok(n)
        }
        .boxed()
    })));
    // The end of the questions is seen while the only answer is not ready.
    assert!(stream.next().now_or_never().is_none());
    open.notify_one();
    assert_eq!(stream.next().await.expect("open").expect("answered"), 0);
    assert!(stream.next().now_or_never().expect("it does not wait").is_none());
}

#[tokio::test]
async fn beyond_the_bound_nothing_is_read() {
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let messages = stream::iter((0..100).map(Ok)).inspect(move |_| _ = counter.fetch_add(1, Ordering::Relaxed));
    let mut stream = Box::pin(answers(parts(messages, |_| future::pending().boxed())));
    assert!(stream.next().now_or_never().is_none());
    assert!(stream.next().now_or_never().is_none());
    assert_eq!(read.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn an_idle_stream_ends_when_the_callers_authority_does() {
    let mut parts = parts(stream::pending(), |n| future::ready(Ok(n)).boxed());
    parts.ended = future::ready(Status::unauthenticated("ended")).boxed();
    let mut stream = Box::pin(answers(parts));
    let status = stream.next().await.expect("one last item").expect_err("ended");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn the_end_of_authority_comes_before_answers_that_are_ready() {
    let mut parts = parts(stream::iter((0..100).map(Ok)), |n| future::ready(Ok(n)).boxed());
    parts.ended = future::ready(Status::unauthenticated("ended")).boxed();
    assert!(Box::pin(answers(parts)).next().await.expect("one last item").is_err());
}

#[tokio::test]
async fn an_answer_that_fails_or_a_broken_message_ends_the_stream() {
    let fails = |n| future::ready(if n == 1 { Err(Status::permission_denied("no")) } else { Ok(n) }).boxed();
    let items: Vec<_> = answers(parts(stream::iter((0..100).map(Ok)), fails)).collect().await;
    assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
    assert!(items.last().is_some_and(Result::is_err));

    let messages = stream::iter([Ok(0), Err(Status::internal("garbled")), Ok(1)]);
    let items: Vec<_> = answers(parts(messages, |n| future::ready(Ok(n)).boxed())).collect().await;
    assert!(items.len() == 2 && items[1].is_err());
}

#[tokio::test]
async fn dropping_the_stream_drops_what_is_in_flight() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let mut stream = Box::pin(answers(parts(stream::iter((0..3).map(Ok)), move |n| {
        let held = Arc::clone(&held);
        async move {
            future::pending::<()>().await;
            drop(held);
            Ok(n)
        }
        .boxed()
    })));
    assert!(stream.next().now_or_never().is_none());
    assert!(Arc::strong_count(&alive) > 2);
    drop(stream);
    assert_eq!(Arc::strong_count(&alive), 1);
}
