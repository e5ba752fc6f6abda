//! A call ends when its client's deadline does, whatever its handler waits for.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tonic::Status;
use tower::Service;

use crate::grpc;

/// A service whose calls end with CANCELLED once the time of their `grpc-timeout` is over. What a client without one
/// pays is a look at the headers.
#[derive(Clone, Debug)]
pub(super) struct Deadlines<S>(pub S);

pin_project! {
    /// The future of a call's answer. A deadline is counted until then; a stream that has begun goes on.
    #[derive(Debug)]
    pub(super) struct Answered<F> {
        #[pin]
        inner: F,
        // Apart, so that the futures of calls without one stay small.
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

impl<S, Q, B> Service<Request<Q>> for Deadlines<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Answered<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let deadline = deadline(request.headers());
        Answered { inner: self.0.call(request), deadline }
    }
}

fn deadline(headers: &HeaderMap) -> Option<Pin<Box<Sleep>>> {
    grpc::deadline_in(headers).map(|deadline| Box::pin(tokio::time::sleep_until(deadline)))
}

impl<F, B> Future for Answered<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.inner.poll(context) {
            return Poll::Ready(answer);
        }
        let Some(deadline) = this.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Ok(Status::cancelled("Timeout expired").into_http()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    use super::*;

    const TAKES: Duration = Duration::from_millis(300);

    /// The status of a call that takes its time, with this `grpc-timeout`, and whether the call came to its end.
    async fn call(timeout: Option<&str>) -> (Option<String>, bool) {
        let slow = service_fn(|_: Request<()>| async {
            tokio::time::sleep(TAKES).await;
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        let started = Instant::now();
        let response = Deadlines(slow).oneshot(request).await.unwrap();
        let status = response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
        (status, started.elapsed() >= TAKES)
    }

    #[tokio::test]
    async fn a_call_is_cut_at_its_own_deadline_and_at_nobody_elses() {
        assert_eq!(call(Some("20m")).await, (Some("1".to_owned()), false));
        for timeout in [None, Some("2S"), Some("20 m"), Some("soon"), Some("")] {
            assert_eq!(call(timeout).await, (None, true), "{timeout:?}");
        }
    }
}
