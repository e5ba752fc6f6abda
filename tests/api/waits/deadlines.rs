//! How long an answer waits: never past its caller's deadline.

use latchkey::proto::{AwaitPropagationRequest, Revision, VerifyTokenRequest};
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::support::{Server, world::assert_refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_before_its_callers_deadline_and_says_what_is_pending() {
    let world = World::start().await;
    let (owner, key_id) = (world.user("owner"), any_key(&world).await);
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    // The first makes the change, the others repeat it: all wait.
    for call in [disable(&owner, &key_id, How::within(300)).await, disable(&owner, &key_id, How::within(300)).await] {
        let Done { propagation, elapsed } = call.expect("answered in time");
        assert_eq!((propagation.complete, propagation.pending_replicas), (false, 1));
        assert!((150..300).contains(&elapsed.as_millis()), "{elapsed:?}");
    }
    let message = AwaitPropagationRequest { revision: None };
    let awaited = timed!(world.verifier.events(), await_propagation, How::within(300), message);
    assert_eq!((awaited.propagation.complete, awaited.propagation.pending_replicas), (false, 1));
    assert!((150..300).contains(&awaited.elapsed.as_millis()), "{:?}", awaited.elapsed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_is_nearer_than_an_answer_needs_is_not_waited_for() {
    let world = World::start().await;
    let (owner, key_id) = (world.user("owner"), any_key(&world).await);
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    for _ in 0..10 {
        let started = Instant::now();
        match disable(&owner, &key_id, How::within(10)).await {
            Ok(done) => assert!(!done.propagation.complete && done.propagation.pending_replicas >= 1, "{done:?}"),
            Err(status) => assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}"),
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    // Whatever they were told, nothing is half done: the next one says how it stands.
    let done = disable(&owner, &key_id, How { skip: true, timeout: None }).await.expect("answered");
    assert!(!done.propagation.complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_deadline_is_answered_soon_after_the_lease() {
    let server = Server::start_with(|flags| flags.with("lease_ms", "1000")).await;
    let world = World::on(server).await;
    let (owner, key_id) = (world.user("owner"), any_key(&world).await);
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    let Done { propagation, elapsed } = disable(&owner, &key_id, How::default()).await.expect("answered");
    assert_eq!((propagation.complete, propagation.pending_replicas), (false, 1));
    assert!((1_900..4_000).contains(&elapsed.as_millis()), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_min_revision_that_is_not_reached_is_refused_before_the_deadline_and_to_be_retried() {
    let world = World::start().await;
    let request = |how: How| {
        how.request(VerifyTokenRequest {
            token: world.verifier.token.clone(),
            requirement: None,
            min_revision: Some(Revision { epoch: 1, number: 1_000_000 }),
        })
    };
    for (how, most) in [(How::within(400), 400), (How::default(), 3_000)] {
        let started = Instant::now();
        let refused = world.verifier.tokens().verify_token(request(how)).await.map(drop);
        assert!((200..most).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        let status = refused.clone().expect_err("not reached");
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
        assert_refused(refused, Code::Unavailable, "REVISION_NOT_REACHED", "");
    }
}
