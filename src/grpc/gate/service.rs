//! The gate's tower service.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, header, request};
use http_body::Body as HttpBody;
use prost::bytes::Bytes;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};
use tonic::{body::Body, codegen::StdError};
use tower::Service;

use super::{
    bulk::{self, PeekedBody},
    headers,
    memory::{MemoryOwner, MemoryReservation, RequestMemory},
    message::{
        body::{ErrorResponse, GateBody, SingleFrame},
        collect::{CollectedMessage, collect},
        discard::DiscardOnDrop,
        fields::SHAPES,
        messages::Messages,
    },
    methods::{Method, MethodKind},
    policy::{Access, Policy},
    unauthenticated_calls::{UnauthenticatedCallPermit, UnauthenticatedCalls},
};
use crate::{
    app::{App, Session, Wait},
    grpc::{
        request::metadata::{Credentials, OnBehalf, credentials},
        service::context::CallDeadline,
        status::Refusal,
        verification::verifications::{self, RequestKind, VerifyingCaller},
    },
};

/// The bounds of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// The largest request message of any method.
    pub message_bytes_max: usize,
    /// How long the rest of a message may take to arrive, counted from when its call or its first byte was read.
    pub message_timeout: Duration,
    /// The bytes of requests that may be held in memory, in the process.
    pub memory_bytes_max: usize,
    /// How many unauthenticated calls of each method may be open, in the process.
    pub open_calls_max: usize,
}

/// The state that the gates of all serving threads share.
#[derive(Clone)]
pub struct GateShared {
    limits: GateLimits,
    memory: Arc<RequestMemory>,
    unauthenticated_calls: Arc<UnauthenticatedCalls>,
    /// The runtime of bulk calls.
    bulk: Handle,
}

/// Authenticates calls and collects their messages before forwarding them to the services. Verifications are answered
/// here, most of them from the cache.
pub struct Gate<S>(Arc<GateInner<S>>);

/// The state of one serving thread's gate: threads share no cache line that every call writes to.
struct GateInner<S> {
    inner: S,
    app: App,
    shared: GateShared,
}

/// A caller that passed authentication.
enum AdmittedCaller<'a> {
    /// An unauthenticated call, with its permit.
    Anonymous(UnauthenticatedCallPermit),
    /// A bearer that the cache knows to be allowed to verify tokens. It is checked again once the message has arrived.
    Verifier(&'a [u8]),
    /// An authenticated caller.
    Session(Session),
}

// === impl AdmittedCaller ===

impl<'a> AdmittedCaller<'a> {
    /// Returns the owner that its message's memory is charged to.
    fn owner(&self, head: &request::Parts) -> MemoryOwner {
        match self {
            Self::Anonymous(_) => MemoryOwner::Anonymous,
            Self::Verifier(_) => {
                head.headers.get(header::AUTHORIZATION).cloned().map_or(MemoryOwner::Anonymous, MemoryOwner::Bearer)
            }
            Self::Session(session) => MemoryOwner::Account(session.account_id().clone()),
        }
    }

    fn caller(&self) -> Option<VerifyingCaller<'_>> {
        match self {
            Self::Anonymous(_) => None,
            Self::Verifier(bearer) => Some(VerifyingCaller::Bearer(bearer)),
            Self::Session(session) => Some(VerifyingCaller::Session(session)),
        }
    }

    /// Splits it into what the service is given and what is held until the service has answered.
    fn parts(self) -> (Option<Session>, Option<UnauthenticatedCallPermit>) {
        match self {
            Self::Anonymous(permit) => (None, Some(permit)),
            Self::Session(session) => (Some(session), None),
            Self::Verifier(_) => (None, None),
        }
    }
}

// === impl GateShared ===

impl GateShared {
    /// Creates the shared state with these bounds and the runtime of bulk calls.
    #[must_use]
    pub fn new(limits: GateLimits, bulk: Handle) -> Self {
        let memory = RequestMemory::new(limits.memory_bytes_max, limits.message_bytes_max);
        Self { limits, memory, unauthenticated_calls: UnauthenticatedCalls::new(limits.open_calls_max), bulk }
    }
}

// === impl Gate ===

impl<S> Gate<S> {
    /// Creates the gate of one serving thread, in front of `inner`.
    pub fn new(inner: S, app: App, shared: GateShared) -> Self {
        Self(Arc::new(GateInner { inner, app, shared }))
    }
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, B, R> Service<Request<B>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    S::Future: 'static,
    B: HttpBody<Data = Bytes, Error: Into<StdError>> + Unpin + Send + 'static,
    R: HttpBody<Data = Bytes, Error: Send> + Unpin + Send + 'static,
{
    type Response = Response<GateBody<PeekedBody<R>>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gate = self.0.clone();
        let (head, body) = request.into_parts();
        let body = DiscardOnDrop::from(body);
        // The timeout is counted from here, where the call has just arrived.
        let settled = headers::method(&head).and_then(|method| {
            let timeout = headers::timeout(&head)?;
            // A timeout beyond what a clock can represent is no deadline.
            Ok((method, timeout.and_then(|timeout| Instant::now().checked_add(timeout))))
        });
        Box::pin(async move {
            let (method, deadline) = match settled {
                Ok(settled) => settled,
                Err(refused) => return Ok(refused.into_response()),
            };
            let answering = gate.answer(method, deadline, head, body);
            let answer = match deadline {
                None => answering.await,
                // Checked before any work is done for the call.
                Some(deadline) if deadline <= Instant::now() => Err(Refusal::deadline_exceeded().into()),
                Some(deadline) => match timeout_at(deadline, answering).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Refusal::deadline_exceeded().into()),
                },
            };
            Ok(answer.unwrap_or_else(ErrorResponse::into_response))
        })
    }
}

/// Names the request that the gate answers itself, if the method is one of those.
fn verification_kind(method: MethodKind) -> Option<RequestKind> {
    match method {
        MethodKind::Unary | MethodKind::ClientStreaming => None,
        MethodKind::VerifyToken => Some(RequestKind::Single),
        MethodKind::VerifyTokens => Some(RequestKind::Batch),
    }
}

// === impl GateInner ===

impl<S> GateInner<S> {
    /// Authenticates the caller from the headers alone.
    async fn admit<'a>(
        &self,
        method: &Method,
        deadline: Option<Instant>,
        head: &'a request::Parts,
    ) -> Result<AdmittedCaller<'a>, ErrorResponse> {
        let on_behalf = match method.policy.access {
            Access::Anonymous => {
                return Ok(AdmittedCaller::Anonymous(self.shared.unauthenticated_calls.acquire(method.index)?));
            }
            Access::OwnToken => {
                credentials(&head.headers, OnBehalf::Refused)?;
                return Ok(AdmittedCaller::Anonymous(self.shared.unauthenticated_calls.acquire(method.index)?));
            }
            Access::Key(on_behalf) => on_behalf,
            Access::Verifier => OnBehalf::Refused,
        };
        let Credentials { bearer, on_behalf_of } = credentials(&head.headers, on_behalf)?;
        let unary = method.kind != MethodKind::ClientStreaming;
        if method.policy.access == Access::Verifier && unary && self.app.is_known_verifier(bearer) {
            return Ok(AdmittedCaller::Verifier(bearer));
        }
        let session = self.app.authenticate_in(method.policy.lane, bearer, on_behalf_of).await?;
        Ok(AdmittedCaller::Session(session.waiting(Wait { deadline, skip: false })))
    }

    /// Returns the size of the largest message that a caller may send.
    fn message_bytes_max(&self, policy: &Policy, admitted: &AdmittedCaller<'_>) -> usize {
        let lacks = match (policy.large_for, admitted) {
            (Some(permission), AdmittedCaller::Session(session)) => !session.holds(permission),
            _ => false,
        };
        let own = if lacks { Policy::BYTES_MAX_WITHOUT_PERMISSION } else { policy.message_bytes_max };
        own.min(self.shared.limits.message_bytes_max)
    }

    async fn answer<B, R>(
        &self,
        method: &'static Method,
        deadline: Option<Instant>,
        head: request::Parts,
        body: B,
    ) -> Result<Response<GateBody<PeekedBody<R>>>, ErrorResponse>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send + 'static> + Clone,
        R: HttpBody<Data = Bytes, Error: Send> + Unpin + Send + 'static,
        B: HttpBody<Data = Bytes, Error: Into<StdError>> + Unpin + Send + 'static,
    {
        let admitted = self.admit(method, deadline, &head).await?;
        let bytes_max = self.message_bytes_max(method.policy, &admitted);
        let timeout = self.shared.limits.message_timeout;
        let mut reservation = self.shared.memory.reservation(admitted.owner(&head));
        if method.kind == MethodKind::ClientStreaming {
            let body = Body::new(Messages::new(body, bytes_max, timeout, reservation));
            let parts = admitted.parts();
            return self.forward(method, deadline, head, body, parts).await;
        }
        let collected = collect(body, bytes_max, timeout, &mut reservation).await?;
        if let Some(kind) = verification_kind(method.kind) {
            let caller = admitted.caller().ok_or_else(Refusal::no_credentials)?;
            let wait = Wait { deadline, skip: false };
            let answer =
                verifications::answer(&self.app, caller, wait, kind, collected.message(), &mut reservation).await?;
            return Ok(GateBody::message(answer));
        }
        let (session, permit) = admitted.parts();
        self.check(method, session.as_ref(), &collected, &mut reservation).await?;
        self.forward(method, deadline, head, Body::new(SingleFrame::new(collected.frame)), (session, permit)).await
    }

    /// Counts a message's lists, and checks the caller's authority again if its message had to be waited for: the
    /// authority may have been withdrawn meanwhile (V1).
    async fn check(
        &self,
        method: &Method,
        session: Option<&Session>,
        collected: &CollectedMessage,
        reservation: &mut MemoryReservation,
    ) -> Result<(), ErrorResponse> {
        if let (true, Some(session)) = (collected.waited, session) {
            self.app.check_session(session).await?;
        }
        reservation.add_decode_overhead(SHAPES.check(&method.input, &collected.message())?)?;
        Ok(())
    }

    /// Forwards a call to its service, on the bulk threads if it may take long.
    async fn forward<R>(
        &self,
        method: &Method,
        deadline: Option<Instant>,
        head: request::Parts,
        body: Body,
        (session, permit): (Option<Session>, Option<UnauthenticatedCallPermit>),
    ) -> Result<Response<GateBody<PeekedBody<R>>>, ErrorResponse>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send + 'static> + Clone,
        R: HttpBody<Data = Bytes, Error: Send> + Unpin + Send + 'static,
    {
        let mut request = Request::from_parts(head, body);
        if let Some(session) = session {
            request.extensions_mut().insert(session);
        }
        request.extensions_mut().insert(CallDeadline(deadline));
        let answering = Box::pin(self.inner.clone().call(request)).map(|Ok(response)| response);
        let response = if method.policy.bulk {
            bulk::run(&self.shared.bulk, answering).await?
        } else {
            answering.await.map(PeekedBody::from)
        };
        let ends = deadline.filter(|_| method.streams_out);
        Ok(response.map(|body| GateBody::forwarded(body, ends, permit)))
    }
}
