use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    thread,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
};
use tonic::{Code, Status};

use super::*;
use crate::grpc::gate::methods::{METHODS, MethodKind};

/// A body of two frames, which notes the threads that polled it.
struct Noting(Arc<Mutex<Vec<Option<String>>>>, usize);

impl Body for Noting {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.lock().unwrap().push(thread::current().name().map(str::to_owned));
        self.1 += 1;
        let frame = Frame::data(Bytes::from(format!("{}", self.1)));
        Poll::Ready((self.1 <= 2).then_some(Ok(frame)))
    }
}

fn bulk_runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name("bulk").build().unwrap()
}

/// The frames of an answer, and whether each was made on a bulk thread.
async fn answered() -> (Vec<Bytes>, Vec<bool>) {
    let (runtime, threads) = (bulk_runtime(), Arc::default());
    let body = Noting(Arc::clone(&threads), 0);
    let answer = run(runtime.handle(), async move { Response::new(body) }).await.ok().unwrap();
    let mut body = answer.into_body();
    let mut frames = Vec::new();
    while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        frames.push(frame.into_data().unwrap());
    }
    runtime.shutdown_background();
    let threads = threads.lock().unwrap().iter().map(|name| name.as_deref() == Some("bulk")).collect();
    (frames, threads)
}

#[tokio::test]
async fn an_answers_message_is_encoded_on_a_bulk_thread_and_the_rest_made_where_it_is_read() {
    let frames = ["1", "2"].map(Bytes::from);
    assert_eq!(answered().await, (frames.to_vec(), vec![true, false, false]));
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_on_its_bulk_thread() {
    let runtime = bulk_runtime();
    let (begun, held) = (Arc::new(Notify::new()), Arc::new(()));
    let (begins, holds) = (begun.clone(), held.clone());
    let call = async move {
        let _holds = holds;
        begins.notify_one();
        std::future::pending::<Response<tonic::body::Body>>().await
    };
    tokio::select! {
        _ = run(runtime.handle(), call) => panic!("it has no end"),
        () = begun.notified() => {}
    }
    while Arc::strong_count(&held) > 1 {
        tokio::task::yield_now().await;
    }
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_panic_ends_its_own_call_and_a_stopped_runtime_says_so() {
    let runtime = bulk_runtime();
    let handle = runtime.handle().clone();
    let panics = async { panic!("a bug") };
    let panicked = tokio::spawn(async move { run::<_, tonic::body::Body>(&handle, panics).await.is_ok() });
    assert!(panicked.await.unwrap_err().is_panic());
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let refused = run(&handle, async { Response::new(tonic::body::Body::empty()) }).await;
    assert_eq!(Status::from(refused.err().unwrap()).code(), Code::Unavailable);
}

#[test]
fn reads_that_may_be_long_are_bulk_and_no_mutation_watch_or_verification_is() {
    for method in METHODS.all() {
        let policy = method.policy;
        assert!(!policy.bulk || method.kind == MethodKind::Unary && !method.streams_out, "{}", policy.method);
        let (service, method) = policy.method.rsplit_once('/').unwrap();
        let large = ["List", "GetCatalogue", "VerifyEventChain"];
        let large = large.iter().any(|name| method.starts_with(name)) && service.starts_with("latchkey");
        assert_eq!(policy.bulk, large, "{}", policy.method);
    }
}
