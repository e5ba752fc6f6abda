use std::{collections::HashSet, sync::Mutex, time::Duration};

use super::*;

/// Opens so many connections, and returns them by thread.
fn deal(balancer: &mut ConnectionBalancer, threads: &[ServingThread], count: usize) -> Vec<(usize, ConnectionCount)> {
    let mut one = || {
        let index = balancer.next(threads);
        (index, threads[index].count_connection())
    };
    (0..count).map(|_| one()).collect()
}

fn open(threads: &[ServingThread]) -> Vec<usize> {
    threads.iter().map(ServingThread::open).collect()
}

#[test]
fn connections_are_dealt_evenly() {
    let threads = ServingThreads::start(4).unwrap().all();
    let mut balancer = ConnectionBalancer::new();
    let dealt = deal(&mut balancer, &threads, 10);
    assert_eq!(dealt.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
    assert_eq!(open(&threads), [3, 3, 2, 2]);
}

#[test]
fn the_thread_with_the_fewest_connections_is_next() {
    let threads = ServingThreads::start(3).unwrap().all();
    let mut balancer = ConnectionBalancer::new();
    let mut dealt = deal(&mut balancer, &threads, 9);
    dealt.retain(|(index, _)| *index != 1);
    assert_eq!(open(&threads), [3, 0, 3]);
    let more = deal(&mut balancer, &threads, 3);
    assert_eq!((more.iter().all(|(index, _)| *index == 1), open(&threads)), (true, vec![3, 3, 3]));
}

#[test]
fn connections_that_come_one_after_another_take_turns() {
    let threads = ServingThreads::start(3).unwrap().all();
    let mut balancer = ConnectionBalancer::new();
    let served: Vec<usize> = (0..6).map(|_| deal(&mut balancer, &threads, 1)[0].0).collect();
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test]
async fn each_serving_thread_ends_with_everything_that_runs_on_it() {
    /// Tells that it was dropped.
    struct Running(Arc<Mutex<Vec<String>>>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().name().unwrap_or_default().to_owned());
        }
    }
    let threads = ServingThreads::start(2).unwrap();
    let dropped = Arc::new(Mutex::new(Vec::new()));
    for thread_handle in threads.all() {
        let running = Running(dropped.clone());
        // Two tasks that would go on for ever, and a thread's name for each.
        thread_handle.runtime.spawn(async move {
            let _running = running;
            std::future::pending::<()>().await;
        });
        let names: HashSet<_> =
            [thread_handle.runtime.spawn(async { name() }).await, thread_handle.runtime.spawn(async { name() }).await]
                .map(Result::unwrap)
                .into();
        assert_eq!(names.len(), 1);
    }
    tokio::time::timeout(Duration::from_secs(5), threads.stop()).await.expect("they end");
    let mut names = dropped.lock().unwrap().clone();
    names.sort();
    assert_eq!(names, ["serving-0", "serving-1"]);
}

fn name() -> Option<String> {
    thread::current().name().map(str::to_owned)
}

#[tokio::test]
async fn a_panic_ends_its_own_task_and_no_thread() {
    let threads = ServingThreads::start(1).unwrap();
    let thread_handle = &threads.all()[0];
    let panicked = thread_handle.runtime.spawn(async { panic!("on purpose") }).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(thread_handle.runtime.spawn(async { 1 }).await.unwrap(), 1);
}
