//! The tower layer that observes every RPC of a tonic server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Code;
use tower::{Layer, Service};

use super::{
    clock::now,
    methods::MethodTable,
    metrics::Metrics,
    rpc::{Rpc, RpcObserver},
};

/// Makes one span and one measurement of each RPC: `Server::builder().layer(GrpcLayer::new(methods, metrics))`.
///
/// The span is current while the handler runs and while a stream's messages are made. The status comes from headers or
/// trailers. No header, metadata or body is recorded. An RPC dropped before its end counts as unfinished and CANCELLED:
/// its client went away, or its handler panicked.
#[derive(Debug, Clone)]
pub struct GrpcLayer(Arc<RpcObserver>);

/// A service that [`GrpcLayer`] observes.
#[derive(Debug, Clone)]
pub struct GrpcService<S> {
    inner: S,
    observer: Arc<RpcObserver>,
}

pin_project! {
    /// The future of an observed RPC's response.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        rpc: Option<Rpc>,
    }
}

pin_project! {
    /// The body of an observed RPC's response. Dropped before its end, it counts as unfinished.
    #[derive(Debug)]
    pub struct ObservedBody<B> {
        #[pin]
        inner: B,
        rpc: Option<Rpc>,
    }
}

// === impl GrpcLayer ===

impl GrpcLayer {
    /// Observes RPCs under the names in `methods`. Make one for each thread that serves: they share `metrics`, and
    /// nothing that every call writes to.
    pub fn new(methods: Arc<MethodTable>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(RpcObserver::new(methods, metrics, now)))
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = GrpcService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcService { inner, observer: Arc::clone(&self.0) }
    }
}

// === impl GrpcService ===

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for GrpcService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<ObservedBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let rpc = self.observer.start(request.uri().path(), request.headers());
        let inner = rpc.span().in_scope(|| self.inner.call(request));
        ResponseFuture { inner, rpc: Some(rpc) }
    }
}

// === impl ResponseFuture ===

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ObservedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = {
            let _entered = this.rpc.as_ref().map(|rpc| rpc.span().enter());
            this.inner.poll(context)
        };
        let response = match ready!(polled) {
            Ok(response) => response,
            Err(error) => {
                finish(this.rpc, Code::Unknown);
                return Poll::Ready(Err(error));
            }
        };
        // An error without messages has its status in the headers, and its body is not polled.
        match Rpc::status_in(response.headers()) {
            Some(code) => finish(this.rpc, code),
            None if response.body().is_end_stream() => finish(this.rpc, Code::Unknown),
            None => {}
        }
        let rpc = this.rpc.take();
        Poll::Ready(Ok(response.map(|inner| ObservedBody { inner, rpc })))
    }
}

/// Records the end and drops the span, so that it is exported now and not when the connection drops the body.
fn finish(rpc: &mut Option<Rpc>, code: Code) {
    if let Some(mut rpc) = rpc.take() {
        rpc.finish(code);
    }
}

// === impl ObservedBody ===

impl<B: Body> Body for ObservedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = {
            let _entered = this.rpc.as_ref().map(|rpc| rpc.span().enter());
            this.inner.poll_frame(context)
        };
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    finish(this.rpc, Rpc::status_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            // An end without a status is what a gRPC client reports as UNKNOWN.
            Some(Err(_)) | None => finish(this.rpc, Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::super::log::logs::captured::Captured;
    use super::super::{Otlp, build};
    use super::*;
    use crate::settings::LogFormat;

    fn layer(metrics: &Arc<Metrics>) -> GrpcLayer {
        let methods = MethodTable::new(["a.B/C", MethodTable::HOT[0]]);
        GrpcLayer::new(Arc::new(methods), Arc::clone(metrics))
    }

    fn request(method: &str) -> Request<String> {
        Request::builder().uri(format!("/{method}")).body(String::new()).unwrap()
    }

    #[tokio::test]
    async fn a_call_dropped_before_its_answer_is_unfinished() {
        let metrics = Arc::new(Metrics::new());
        let never = service_fn(|_: Request<String>| std::future::pending::<Result<Response<String>, Infallible>>());
        let call = layer(&metrics).layer(never).oneshot(request("a.B/C"));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), call).await.is_err());
        assert_eq!(metrics.rpcs_unfinished(), 1);
    }

    #[tokio::test]
    async fn an_answer_dropped_before_its_end_is_unfinished_and_one_that_ended_is_not() {
        let metrics = Arc::new(Metrics::new());
        let answer = |text: &'static str| {
            let respond = move |_: Request<String>| async move { Ok::<_, Infallible>(Response::new(text.to_owned())) };
            layer(&metrics).layer(service_fn(respond)).oneshot(request("a.B/C"))
        };
        drop(answer("").await.unwrap());
        assert_eq!(metrics.rpcs_unfinished(), 0, "nothing was to come");
        let mut body = std::pin::pin!(answer("message").await.unwrap().into_body());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(body.as_mut().poll_frame(&mut context), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(body.as_mut().poll_frame(&mut context), Poll::Ready(None)));
        assert_eq!(metrics.rpcs_unfinished(), 0, "it was read to its end");
        drop(answer("message").await.unwrap());
        assert_eq!(metrics.rpcs_unfinished(), 1, "no client read it");
    }

    /// Seen through the log and not `Span::is_disabled`: in a process with several subscribers, as this test's is, the
    /// latter says only that one of them may want the span.
    #[test]
    fn at_the_default_level_hot_methods_have_no_span_and_others_do() {
        let captured = Captured::default();
        let metrics = Arc::new(Metrics::new());
        let (dispatch, _guard) = build(captured.options(LogFormat::Json, "info"), &Otlp::off(), &metrics).unwrap();
        let methods = ["a.B/C", MethodTable::HOT[0], "no.Such/method"];
        tracing::dispatcher::with_default(&dispatch, || {
            for method in methods {
                let mut rpc = layer(&metrics).0.start(&format!("/{method}"), &http::HeaderMap::new());
                rpc.span().in_scope(|| tracing::info!("inside"));
                rpc.finish(Code::Ok);
            }
        });
        let lines: Vec<serde_json::Value> =
            captured.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["inside", "close", "inside", "inside"], "one line tells of a call that has a span");
        assert!(lines[..2].iter().all(|line| line["span"]["rpc.method"] == "a.B/C"), "{lines:#?}");
        assert!(lines[2..].iter().all(|line| line.get("span").is_none()), "{lines:#?}");
    }
}
