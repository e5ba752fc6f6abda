//! Fair shares: what one account's callers ask for, however often, delays no revocation, its own or another's, and no
//! other tenant; what is beyond a share is refused, naming the bound.

mod away;
mod floods;
mod queues;
mod watches;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{Caller, World, server::connect};

/// A call made again and again, so many times at once, until stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    loops: JoinSet<()>,
}

impl Flood {
    /// Starts it; what the calls answer does not matter, but that the server refuses none for a reason of its own.
    fn start<F, C>(loops: usize, call: C) -> Self
    where
        C: Fn() -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), Status>> + Send,
    {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut set = JoinSet::new();
        for _ in 0..loops {
            let (stop, answered, call) = (stop.clone(), answered.clone(), call.clone());
            set.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if let Err(status) = call().await {
                        assert!(is_a_share(&status) || status.code() == Code::FailedPrecondition, "{status:?}");
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { stop, answered, loops: set }
    }

    /// Waits until every loop is at work.
    async fn under_way(&self) {
        while self.answered.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it; how many calls were answered.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.loops.join_all().await;
        self.answered.load(Ordering::SeqCst)
    }
}

/// True if a share or a quota was exceeded.
fn is_a_share(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
}

/// The bound that a refusal names, and that it says when to come back.
#[track_caller]
fn exceeded<T>(result: Result<T, Status>) -> (String, String) {
    let Err(status) = result else { panic!("must be refused") };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{status:?}");
    let info = details.error_info().expect("every error carries ErrorInfo");
    assert_eq!(info.reason, "SHARE_EXCEEDED", "{status:?}");
    let named = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
    assert!(status.message().contains(&named("bound")), "{status:?}");
    (named("bound"), named("limit"))
}

/// The same caller on a connection of its own.
async fn apart(world: &World, caller: &Caller) -> Caller {
    Caller { channel: connect(world.server.running.address()).await, ..caller.clone() }
}
