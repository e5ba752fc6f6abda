use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

/// A connection on which these calls arrive at the first poll, and which then stays open.
fn driven(arrived: &InlineExecutor, calls: Vec<Call>) -> Pin<Box<DrivenConnection<impl Future<Output = ()> + use<>>>> {
    let (executor, mut calls) = (arrived.clone(), Some(calls));
    let connection = std::future::poll_fn(move |_| {
        calls.take().into_iter().flatten().for_each(|call| executor.execute(call));
        Poll::Pending
    });
    Box::pin(DrivenConnection::new(connection, arrived.clone()))
}

fn poll(driven: &mut Pin<Box<DrivenConnection<impl Future<Output = ()>>>>) {
    assert!(driven.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Counts calls that have ended, whichever way.
#[derive(Clone, Default)]
struct Ended(Arc<AtomicUsize>);

impl Ended {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn call(&self, work: impl Future<Output = ()> + Send + 'static) -> Call {
        struct CloseReason(Ended);
        impl Drop for CloseReason {
            fn drop(&mut self) {
                self.0.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let ending = CloseReason(self.clone());
        Box::pin(async move {
            let _ending = ending;
            work.await;
        })
    }
}

#[tokio::test]
async fn a_call_that_need_not_wait_ends_in_its_connections_turn_and_others_go_on_as_tasks() {
    let (arrived, ended, go) = (InlineExecutor::default(), Ended::default(), Arc::new(Notify::new()));
    let waits = go.clone();
    let calls = vec![ended.call(async move { waits.notified().await }), ended.call(async {})];
    let mut driven = driven(&arrived, calls);
    poll(&mut driven);
    assert_eq!(ended.count(), 1, "one of them, and without a task's turn");
    tokio::task::yield_now().await;
    go.notify_one();
    while ended.count() < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_call_only() {
    let (arrived, ended) = (InlineExecutor::default(), Ended::default());
    let calls = vec![ended.call(async { panic!("on purpose") }), ended.call(async {})];
    poll(&mut driven(&arrived, calls));
    assert_eq!(ended.count(), 2);
}

#[tokio::test]
async fn a_crowd_of_calls_is_not_served_in_one_turn() {
    let (arrived, ended) = (InlineExecutor::default(), Ended::default());
    let calls = (0..CALLS_AT_ONCE_MAX + 10).map(|_| ended.call(async {})).collect();
    poll(&mut driven(&arrived, calls));
    assert_eq!(ended.count(), CALLS_AT_ONCE_MAX);
    while ended.count() < CALLS_AT_ONCE_MAX + 10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_is_dropped_takes_what_was_not_started_with_it() {
    let (arrived, ended) = (InlineExecutor::default(), Ended::default());
    let unpolled = driven(&arrived, vec![]);
    let keeps_its_executor = arrived.clone();
    arrived.execute(ended.call(async move { drop(keeps_its_executor) }));
    drop(unpolled);
    assert_eq!(ended.count(), 1);
}
