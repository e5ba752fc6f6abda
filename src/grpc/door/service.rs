//! The door itself: a tower service in front of the others.

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
    bulk::{self, Begun},
    headers,
    memory::{RequestMemory, Reservation, Taker},
    message::{
        body::{DoorBody, Refused, Whole},
        fields::SHAPES,
        gather::{Gathered, gather},
        messages::Messages,
        remainder::Remainder,
    },
    methods::{Form, Method},
    policy::{Policy, Who},
    slots::{Slot, Slots},
};
use crate::{
    app::{App, Session, Wait},
    grpc::{
        request::metadata::{Credentials, OnBehalf, credentials},
        service::entry::Deadline,
        status::Refusal,
        verification::verifications::{self, Caller},
    },
};

/// The door's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest request message of any method.
    pub message_bytes_max: usize,
    /// How long the rest of a message may take, once some of it or its call is there.
    pub message_patience: Duration,
    /// Bytes of requests in memory, in the process.
    pub memory_bytes_max: usize,
    /// Calls of each method that takes no caller that may be open, in the process.
    pub open_calls_max: usize,
}

/// What the doors of all cores share.
#[derive(Clone)]
pub struct Shared {
    limits: Limits,
    memory: Arc<RequestMemory>,
    slots: Arc<Slots>,
    /// Where bulk calls run.
    bulk: Handle,
}

/// Lets in the calls that are right by their headers, with their message gathered and their caller known, and answers
/// the others. Verifications are answered here: most of them from memory.
pub struct Door<S>(Arc<Core<S>>);

/// One core's own: what every call counts on it is no neighbour's cache line.
struct Core<S> {
    inner: S,
    app: App,
    shared: Shared,
}

/// A caller who is let in.
enum Admitted<'a> {
    /// Nobody in particular.
    Open(Slot),
    /// A bearer whom memory knows as one who may verify. It is looked at again for the message that is to come.
    Verifier(&'a [u8]),
    /// A caller.
    Session(Session),
}

// === impl Admitted ===

impl<'a> Admitted<'a> {
    /// Whose share of memory its message takes.
    fn taker(&self, head: &request::Parts) -> Taker {
        match self {
            Self::Open(_) => Taker::Open,
            Self::Verifier(_) => head.headers.get(header::AUTHORIZATION).cloned().map_or(Taker::Open, Taker::Bearer),
            Self::Session(session) => Taker::Account(session.account_id().clone()),
        }
    }

    fn caller(&self) -> Option<Caller<'_>> {
        match self {
            Self::Open(_) => None,
            Self::Verifier(bearer) => Some(Caller::Bearer(bearer)),
            Self::Session(session) => Some(Caller::Session(session)),
        }
    }

    /// What a service is given, and what is held until it has answered.
    fn parts(self) -> (Option<Session>, Option<Slot>) {
        match self {
            Self::Open(slot) => (None, Some(slot)),
            Self::Session(session) => (Some(session), None),
            Self::Verifier(_) => (None, None),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// With these bounds, and the runtime of bulk calls.
    #[must_use]
    pub fn new(limits: Limits, bulk: Handle) -> Self {
        let memory = RequestMemory::new(limits.memory_bytes_max, limits.message_bytes_max);
        Self { limits, memory, slots: Slots::new(limits.open_calls_max), bulk }
    }
}

// === impl Door ===

impl<S> Door<S> {
    /// In front of the services of a server: one for each core.
    pub fn new(inner: S, app: App, shared: Shared) -> Self {
        Self(Arc::new(Core { inner, app, shared }))
    }
}

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, B, R> Service<Request<B>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    S::Future: 'static,
    B: HttpBody<Data = Bytes, Error: Into<StdError>> + Unpin + Send + 'static,
    R: HttpBody<Data = Bytes, Error: Send> + Unpin + Send + 'static,
{
    type Response = Response<DoorBody<Begun<R>>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = self.0.clone();
        let (head, body) = request.into_parts();
        let body = Remainder::from(body);
        // Counted from here, where the call has just arrived.
        let settled = headers::method(&head).and_then(|method| {
            let timeout = headers::timeout(&head)?;
            // One beyond what a clock can say is none.
            Ok((method, timeout.and_then(|timeout| Instant::now().checked_add(timeout))))
        });
        Box::pin(async move {
            let (method, deadline) = match settled {
                Ok(settled) => settled,
                Err(refused) => return Ok(refused.into_response()),
            };
            let answering = core.answer(method, deadline, head, body);
            let answer = match deadline {
                None => answering.await,
                // Before anything is done for it.
                Some(deadline) if deadline <= Instant::now() => Err(Refusal::deadline_exceeded().into()),
                Some(deadline) => match timeout_at(deadline, answering).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Refusal::deadline_exceeded().into()),
                },
            };
            Ok(answer.unwrap_or_else(Refused::into_response))
        })
    }
}

// === impl Core ===

impl<S> Core<S> {
    /// Finds out who calls, from the headers alone.
    async fn admit<'a>(
        &self,
        method: &Method,
        deadline: Option<Instant>,
        head: &'a request::Parts,
    ) -> Result<Admitted<'a>, Refused> {
        let on_behalf = match method.policy.who {
            Who::Open => return Ok(Admitted::Open(self.shared.slots.take(method.index)?)),
            Who::OwnToken => {
                credentials(&head.headers, OnBehalf::Refused)?;
                return Ok(Admitted::Open(self.shared.slots.take(method.index)?));
            }
            Who::Key(on_behalf) => on_behalf,
            Who::Verifier => OnBehalf::Refused,
        };
        let Credentials { bearer, on_behalf_of } = credentials(&head.headers, on_behalf)?;
        let unary = method.form != Form::Many;
        if method.policy.who == Who::Verifier && unary && self.app.is_known_verifier(bearer) {
            return Ok(Admitted::Verifier(bearer));
        }
        let session = self.app.authenticate_in(method.policy.lane, bearer, on_behalf_of).await?;
        Ok(Admitted::Session(session.waiting(Wait { deadline, skip: false })))
    }

    /// The largest message that a caller may send.
    fn message_bytes_max(&self, policy: &Policy, admitted: &Admitted<'_>) -> usize {
        let lacks = match (policy.large_for, admitted) {
            (Some(permission), Admitted::Session(session)) => !session.holds(permission),
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
    ) -> Result<Response<DoorBody<Begun<R>>>, Refused>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send + 'static> + Clone,
        R: HttpBody<Data = Bytes, Error: Send> + Unpin + Send + 'static,
        B: HttpBody<Data = Bytes, Error: Into<StdError>> + Unpin + Send + 'static,
    {
        let admitted = self.admit(method, deadline, &head).await?;
        let bytes_max = self.message_bytes_max(method.policy, &admitted);
        let patience = self.shared.limits.message_patience;
        let mut room = self.shared.memory.reservation(admitted.taker(&head));
        if method.form == Form::Many {
            let body = Body::new(Messages::new(body, bytes_max, patience, room));
            let parts = admitted.parts();
            return self.pass(method, deadline, head, body, parts).await;
        }
        let gathered = gather(body, bytes_max, patience, &mut room).await?;
        if let Some(form) = method.form.verification() {
            let caller = admitted.caller().ok_or_else(Refusal::no_credentials)?;
            let wait = Wait { deadline, skip: false };
            let answer = verifications::answer(&self.app, caller, wait, form, gathered.message(), &mut room).await?;
            return Ok(DoorBody::message(answer));
        }
        let (session, slot) = admitted.parts();
        self.check(method, session.as_ref(), &gathered, &mut room).await?;
        self.pass(method, deadline, head, Body::new(Whole::new(gathered.frame)), (session, slot)).await
    }

    /// Looks at a message's lists, and once more at a caller whose message was waited for: its authority may have been
    /// withdrawn meanwhile (V1).
    async fn check(
        &self,
        method: &Method,
        session: Option<&Session>,
        gathered: &Gathered,
        room: &mut Reservation,
    ) -> Result<(), Refused> {
        if let (true, Some(session)) = (gathered.waited, session) {
            self.app.check_session(session).await?;
        }
        room.weigh(SHAPES.check(&method.input, &gathered.message())?)?;
        Ok(())
    }

    /// Has a service answer, on the bulk threads if it may take long.
    async fn pass<R>(
        &self,
        method: &Method,
        deadline: Option<Instant>,
        head: request::Parts,
        body: Body,
        (session, slot): (Option<Session>, Option<Slot>),
    ) -> Result<Response<DoorBody<Begun<R>>>, Refused>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send + 'static> + Clone,
        R: HttpBody<Data = Bytes, Error: Send> + Unpin + Send + 'static,
    {
        let mut request = Request::from_parts(head, body);
        if let Some(session) = session {
            request.extensions_mut().insert(session);
        }
        request.extensions_mut().insert(Deadline(deadline));
        let answering = Box::pin(self.inner.clone().call(request)).map(|Ok(response)| response);
        let response = if method.policy.bulk {
            bulk::run(&self.shared.bulk, answering).await?
        } else {
            answering.await.map(Begun::from)
        };
        let ends = deadline.filter(|_| method.streams_out);
        Ok(response.map(|body| DoorBody::passed(body, ends, slot)))
    }
}
