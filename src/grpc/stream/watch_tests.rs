use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{future, stream};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn parts(messages: impl Stream<Item = Result<usize, Status>> + Send + 'static) -> WatchParts<usize> {
    WatchParts {
        messages: messages.boxed(),
        ended: future::pending().boxed(),
        allowed: Box::new(|| future::ready(Ok(())).boxed()),
        message_timeout: Duration::from_secs(60),
    }
}

fn endless() -> impl Stream<Item = Result<usize, Status>> + Send + 'static {
    stream::iter((0..).map(Ok))
}

async fn next(stream: &mut (impl Stream<Item = Result<usize, Status>> + Unpin)) -> Result<usize, Code> {
    let next = timeout(SOON, stream.next()).await.expect("soon");
    next.expect("no end without a reason").map_err(|status| status.code())
}

#[tokio::test]
async fn messages_come_in_order_however_far_the_consumer_is_behind() {
    let mut stream = Box::pin(buffered(parts(endless())));
    for n in 0..1_000 {
        assert_eq!(next(&mut stream).await, Ok(n));
    }
}

#[tokio::test]
async fn no_more_is_read_than_may_wait() {
    let read = Arc::new(AtomicUsize::new(0));
    let counter = read.clone();
    let messages = endless().inspect(move |_| _ = counter.fetch_add(1, Ordering::Relaxed));
    let _stream = buffered(parts(messages));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(read.load(Ordering::Relaxed), WAITING_MAX);
}

#[tokio::test]
async fn a_slow_client_gets_the_reason_before_buffered_messages() {
    let message_timeout = Duration::from_millis(50);
    let mut stream = Box::pin(buffered(WatchParts { message_timeout, ..parts(endless()) }));
    assert_eq!(next(&mut stream).await, Ok(0));
    sleep(message_timeout * 4).await;
    assert_eq!(next(&mut stream).await, Err(Code::ResourceExhausted));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_consumer_that_takes_some_now_and_then_is_still_cut_off_by_the_age_of_the_oldest() {
    let message_timeout = Duration::from_millis(100);
    let mut stream = Box::pin(buffered(WatchParts { message_timeout, ..parts(endless()) }));
    let mut taken = 0;
    while next(&mut stream).await.is_ok() {
        taken += 1;
        sleep(Duration::from_millis(20)).await;
    }
    // Sixteen messages wait, and at this pace the last of them waits for 320 ms.
    assert!((2..WAITING_MAX).contains(&taken), "{taken}");
}

#[tokio::test]
async fn a_stream_without_messages_stays_open() {
    let messages = stream::iter([Ok(0)]).chain(stream::pending());
    let message_timeout = Duration::from_millis(20);
    let mut stream = Box::pin(buffered(WatchParts { message_timeout, ..parts(messages) }));
    assert_eq!(next(&mut stream).await, Ok(0));
    assert!(timeout(message_timeout * 5, stream.next()).await.is_err());
}

#[tokio::test]
async fn the_end_of_authority_comes_before_all_that_waits() {
    let over = Arc::new(Notify::new());
    let ends = over.clone();
    let ended = async move {
        ends.notified().await;
        Status::unauthenticated("ended")
    };
    let mut stream = Box::pin(buffered(WatchParts { ended: ended.boxed(), ..parts(endless()) }));
    assert_eq!(next(&mut stream).await, Ok(0));
    over.notify_one();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(next(&mut stream).await, Err(Code::Unauthenticated));
}

#[tokio::test]
async fn a_message_is_handed_over_only_if_that_is_allowed_at_that_moment() {
    let allowed = Arc::new(AtomicBool::new(true));
    let asked = allowed.clone();
    let judge = move || {
        let allowed = asked.load(Ordering::Relaxed);
        future::ready(if allowed { Ok(()) } else { Err(Status::permission_denied("no more")) }).boxed()
    };
    let mut stream = Box::pin(buffered(WatchParts { allowed: Box::new(judge), ..parts(endless()) }));
    assert_eq!(next(&mut stream).await, Ok(0));
    allowed.store(false, Ordering::Relaxed);
    assert_eq!(next(&mut stream).await, Err(Code::PermissionDenied));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_stream_never_ends_without_a_reason() {
    let failing = stream::iter([Err(Status::unavailable("gone"))]);
    assert_eq!(next(&mut Box::pin(buffered(parts(failing)))).await, Err(Code::Unavailable));
    assert_eq!(next(&mut Box::pin(buffered(parts(stream::empty())))).await, Err(Code::Internal));
    let panicking = stream::poll_fn(|_| -> std::task::Poll<Option<Result<usize, Status>>> { panic!("a bug") });
    assert_eq!(next(&mut Box::pin(buffered(parts(panicking)))).await, Err(Code::Internal));
}

#[tokio::test]
async fn when_the_client_goes_so_does_all_that_worked_for_it() {
    let alive = Arc::new(());
    let held = alive.clone();
    let messages = endless().inspect(move |_| _ = Arc::strong_count(&held));
    let stream = buffered(parts(messages));
    sleep(Duration::from_millis(20)).await;
    drop(stream);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(Arc::strong_count(&alive), 1);
}
