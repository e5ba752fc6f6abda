//! A server that stops does not wait for streams that would never end.

use std::time::Duration;

use latchkey::proto::StreamVerifyTokensRequest;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Watch, at};
use crate::support::{
    World,
    calls::head,
    world::{ACME, assert_refused},
};

fn assert_draining(status: Status) {
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    assert_refused(Err::<(), _>(status), Code::Unavailable, "DRAINING", "resume");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_at_once_when_the_server_stops_and_the_stop_does_not_wait_for_them() {
    let world = World::start().await;
    let head = head(&world).await;
    let mut watches = [
        Watch::open(&world.auditor, "", at(head)).await.expect("open"),
        Watch::open(&world.user("owner"), ACME, at(head)).await.expect("open"),
    ];
    let (_open, messages) = mpsc::channel::<StreamVerifyTokensRequest>(1);
    let answers = world.verifier.tokens().stream_verify_tokens(ReceiverStream::new(messages)).await;
    let mut answers = answers.expect("open").into_inner();
    let stopping = Instant::now();
    let stopped = tokio::spawn(world.server.running.stop());
    for watch in &mut watches {
        let (events, status) = watch.end().await;
        assert_eq!(events, Vec::<i64>::new());
        assert_draining(status);
    }
    assert_draining(answers.message().await.expect_err("ended"));
    stopped.await.expect("no panic");
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
}
