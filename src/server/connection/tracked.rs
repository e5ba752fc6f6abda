//! Tracks calls from their headers until the transport has released their responses.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tonic::Status;
use tower::Service;

use super::{
    activity::{Activity, OpenCall, ResponseProgress},
    unread::{self, LARGE_BYTES, ResponseReservation, UnreadBudgets},
};
use crate::grpc::status::Refusal;

/// Large messages are handed to the transport in pieces of this size, which bounds what it holds of a message that is
/// not read.
const PIECE_BYTES: usize = 16 * 1024;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Wraps a service so that its calls count as open on a connection, and its responses count until they are read.
#[derive(Clone)]
pub(crate) struct Tracked<S> {
    inner: S,
    activity: Arc<Activity>,
    unread: UnreadBudgets,
}

pin_project! {
    /// The future of a call's response.
    pub(crate) struct TrackedFuture<F, B> {
        #[pin]
        state: CallState<F, B>,
        call: Option<OpenCall>,
        unread: UnreadBudgets,
    }
}

pin_project! {
    #[project = CallStateProjection]
    enum CallState<F, B> {
        Small { #[pin] inner: F },
        // Waits for its reservation, and then runs.
        Large { inner: Boxed<Result<(Response<B>, ResponseReservation), Status>> },
    }
}

pin_project! {
    /// The body of a call's response.
    pub(crate) struct TrackedBody<B> {
        // None if there was no room for the response.
        #[pin]
        inner: Option<B>,
        call: Option<OpenCall>,
        // Whether the transport has a piece that it may not have sent yet.
        given: bool,
        large: Option<LargeBody>,
    }

    impl<B> PinnedDrop for TrackedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if *this.given && let Some(call) = this.call {
                call.taken();
            }
        }
    }
}

/// The state of a large response.
struct LargeBody {
    unread: UnreadBudgets,
    /// Held until its message is there.
    reserved: Option<ResponseReservation>,
    /// The rest of its message.
    rest: Bytes,
    progress: ResponseProgress,
    /// Waits while the connection has used up its budget: no more of the stream is made meanwhile.
    waiting: Option<Boxed<()>>,
}

// === impl Tracked ===

impl<S> Tracked<S> {
    pub(crate) fn new(inner: S, activity: Arc<Activity>, unread: UnreadBudgets) -> Self {
        Self { inner, activity, unread }
    }
}

impl<S, Q, B> Service<Request<Q>> for Tracked<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    Q: Send + 'static,
    B: Body<Data = Bytes> + 'static,
{
    type Response = Response<TrackedBody<B>>;
    type Error = Infallible;
    type Future = TrackedFuture<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let call = Some(self.activity.open());
        let state = match unread::estimate(request.uri().path()) {
            None => CallState::Small { inner: self.inner.call(request) },
            Some(estimate) => {
                let (mut inner, unread) = (self.inner.clone(), self.unread.clone());
                let run = async move {
                    let reserved = unread.reserve(estimate).await.map_err(|_| Refusal::unread_answers())?;
                    let Ok(response) = inner.call(request).await;
                    Ok((response, reserved))
                };
                CallState::Large { inner: Box::pin(run) }
            }
        };
        TrackedFuture { state, call, unread: self.unread.clone() }
    }
}

// === impl TrackedFuture ===

impl<F, B> Future for TrackedFuture<F, B>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<TrackedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (response, reserved) = match this.state.project() {
            CallStateProjection::Small { inner } => {
                let Ok(response) = ready!(inner.poll(context));
                (response, None)
            }
            CallStateProjection::Large { inner } => match ready!(inner.as_mut().poll(context)) {
                Ok((response, reserved)) => (response, Some(reserved)),
                Err(status) => return Poll::Ready(Ok(status.into_http())),
            },
        };
        let call = this.call.take();
        let large = reserved.map(|reserved| LargeBody {
            unread: this.unread.clone(),
            reserved: Some(reserved),
            rest: Bytes::new(),
            progress: ResponseProgress::default(),
            waiting: None,
        });
        Poll::Ready(Ok(response.map(|inner| TrackedBody { inner: Some(inner), call, given: false, large })))
    }
}

// === impl TrackedBody ===

impl<B> Default for TrackedBody<B> {
    fn default() -> Self {
        Self { inner: None, call: None, given: false, large: None }
    }
}

impl<B: Body<Data = Bytes>> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        if std::mem::take(this.given)
            && let Some(call) = this.call
        {
            call.taken();
        }
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let data = match this.large.as_mut().filter(|large| !large.rest.is_empty()) {
            Some(large) => large.piece(),
            None => {
                if let Some(large) = this.large {
                    ready!(large.poll_room(context));
                }
                let Some(frame) = ready!(inner.poll_frame(context)) else { return Poll::Ready(None) };
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => match this.large {
                        Some(large) => large.first_piece(data, this.call.as_ref()),
                        None => data,
                    },
                    Ok(Err(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        };
        if let Some(call) = this.call {
            *this.given = true;
            call.given();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.large.as_ref().is_some_and(|large| !large.rest.is_empty());
        !rest && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.large, &self.inner) {
            (None, Some(inner)) => inner.size_hint(),
            (None, None) => SizeHint::with_exact(0),
            (Some(_), _) => SizeHint::default(),
        }
    }
}

impl LargeBody {
    /// Ready when the connection is below its budget; a message with a reservation may always be made.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.reserved.is_some() {
            return Poll::Ready(());
        }
        if self.waiting.is_none() && self.unread.is_over() {
            self.waiting = Some(Box::pin(self.unread.freed()));
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
            self.waiting = None;
        }
        Poll::Ready(())
    }

    /// Takes a complete message and returns its first piece.
    fn first_piece(&mut self, message: Bytes, call: Option<&OpenCall>) -> Bytes {
        let reserved = match self.reserved.take() {
            Some(reserved) => reserved,
            None if message.len() < LARGE_BYTES => return message,
            None => self.unread.count(message.len()),
        };
        self.progress = call.map(OpenCall::large).unwrap_or_default();
        self.rest = reserved.into_message(message, self.progress.clone());
        self.piece()
    }

    fn piece(&mut self) -> Bytes {
        self.progress.made();
        self.rest.split_to(PIECE_BYTES.min(self.rest.len()))
    }
}
