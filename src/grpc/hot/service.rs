//! The way itself: a service in front of the others.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header, request};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tonic::body::Body;
use tower::Service;

use super::{
    answer::{self, Many},
    body::{Gathered, ReadyBody, Replayed, message},
    question::{Batch, Single},
};
use crate::{
    app::{App, Room},
    grpc::metadata::{OnBehalf, credentials},
};

const VERIFY_TOKEN: &str = "/latchkey.v1.TokenService/VerifyToken";
const VERIFY_TOKENS: &str = "/latchkey.v1.TokenService/VerifyTokens";
const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Answers from memory what it can, and has `inner` do everything else.
#[derive(Clone)]
pub struct HotPath<S> {
    inner: S,
    app: App,
    message_bytes_max: usize,
}

#[derive(Clone, Copy)]
enum Call {
    VerifyToken,
    VerifyTokens,
}

pin_project! {
    /// The future of a response.
    #[project = HotResponseProjection]
    pub enum HotResponse<S, F, B> {
        /// Its message is still coming in.
        Gathering { gathering: Option<Gathering<S, B>> },
        /// A service makes it.
        Passed { #[pin] response: F },
    }
}

/// A request whose message is coming in.
pub struct Gathering<S, B> {
    call: Call,
    head: request::Parts,
    body: B,
    gathered: Gathered,
    hot: HotPath<S>,
}

impl Call {
    /// The call of a request that is as usual.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        let call = match request.uri().path() {
            VERIFY_TOKEN => Self::VerifyToken,
            VERIFY_TOKENS => Self::VerifyTokens,
            _ => return None,
        };
        let headers = request.headers();
        let usual = request.method() == Method::POST
            && request.version() == Version::HTTP_2
            && headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind == GRPC || kind.as_bytes() == b"application/grpc+proto")
            && !headers.contains_key(GRPC_ENCODING);
        usual.then_some(call)
    }
}

// === impl HotPath ===

impl<S> HotPath<S> {
    /// In front of the services of a server. Messages beyond `message_bytes_max` are theirs to refuse.
    pub fn new(inner: S, app: App, message_bytes_max: usize) -> Self {
        Self { inner, app, message_bytes_max }
    }

    /// The answer from memory, as a gRPC message. The request is in hand: only now are lease and clock looked at.
    fn answer(&self, call: Call, headers: &HeaderMap, frame: &[u8]) -> Option<Bytes> {
        let message = message(frame)?;
        let credentials = credentials(headers, OnBehalf::Refused).ok()?;
        let recall = self.app.recall();
        match call {
            Call::VerifyToken => {
                let single = Single::read(message)?;
                // Its entry comes while the caller is looked at.
                let token = recall.send_for(single.token);
                let memory = self.app.verify_from_memory(recall, credentials.bearer)?;
                let requirement = single.requirement(|name| memory.permission(name))?;
                answer::single(&memory.memory().answer(&token, requirement.as_ref(), &mut Room::default())?)
            }
            Call::VerifyTokens => {
                let memory = self.app.verify_from_memory(recall, credentials.bearer)?;
                let batch = Batch::read(message, |name| memory.permission(name))?;
                let questions = batch.questions();
                let mut many = Many::new(questions.len());
                memory.memory().verify_many(&questions, |_, answer| many.add(answer));
                many.finish()
            }
        }
    }
}

impl<S, B, R> Service<Request<B>> for HotPath<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + Unpin,
{
    type Response = Response<ReadyBody<R>>;
    type Error = S::Error;
    type Future = HotResponse<S, S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(call) = Call::of(&request) else {
            return HotResponse::Passed { response: self.inner.call(request.map(Body::new)) };
        };
        let (head, body) = request.into_parts();
        // The one that is ready goes with the request.
        let next = self.inner.clone();
        let hot = Self { inner: std::mem::replace(&mut self.inner, next), ..self.clone() };
        HotResponse::Gathering { gathering: Some(Gathering { call, head, body, gathered: Gathered::default(), hot }) }
    }
}

// === impl HotResponse ===

impl<S, B, R> Future for HotResponse<S, S::Future, B>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + Unpin,
{
    type Output = Result<Response<ReadyBody<R>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                HotResponseProjection::Passed { response } => {
                    return response.poll(context).map_ok(|response| response.map(ReadyBody::Passed));
                }
                HotResponseProjection::Gathering { gathering } => {
                    let waiting = gathering.as_mut().expect("it is taken out once, and then replaced");
                    let whole = ready!(waiting.poll_whole(context));
                    let gathering = gathering.take().expect("as before");
                    match gathering.finish(whole) {
                        Ok(answer) => return Poll::Ready(Ok(answer)),
                        Err((mut inner, request)) => inner.call(request),
                    }
                }
            };
            self.set(HotResponse::Passed { response: next });
        }
    }
}

// === impl Gathering ===

/// How gathering ended.
enum Whole<E> {
    /// All of it is there.
    Yes,
    /// It is more than is looked at here.
    TooMuch,
    /// The transport failed.
    Failed(E),
}

impl<S, B> Gathering<S, B>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<Whole<B::Error>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(Whole::Yes),
                Some(Err(error)) => return Poll::Ready(Whole::Failed(error)),
                Some(Ok(frame)) => {
                    // A client has no trailers to send.
                    if let Ok(data) = frame.into_data() {
                        self.gathered.add(data);
                    }
                }
            }
            if self.body.is_end_stream() {
                return Poll::Ready(Whole::Yes);
            }
            if self.gathered.len() > self.hot.message_bytes_max {
                return Poll::Ready(Whole::TooMuch);
            }
        }
    }

    /// The answer, or the request as it came for the service that it is for.
    #[expect(
        clippy::result_large_err,
        reason = "it is matched where it comes back, and a box would cost an allocation"
    )]
    fn finish<R>(mut self, whole: Whole<B::Error>) -> Result<Response<ReadyBody<R>>, (S, Request<Body>)>
    where
        B: Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send + Unpin,
    {
        let frame = self.gathered.take();
        if matches!(whole, Whole::Yes)
            && let Some(message) = self.hot.answer(self.call, &self.head.headers, &frame)
        {
            let mut response = Response::new(ReadyBody::Message(message));
            response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
            return Ok(response);
        }
        let failed = if let Whole::Failed(error) = whole { Some(error) } else { None };
        let beginning = Some(frame).filter(|frame| !frame.is_empty());
        let body = Body::new(Replayed { beginning, failed, rest: self.body });
        Err((self.hot.inner, Request::from_parts(self.head, body)))
    }
}
