//! Calls as HTTP/2 has them, headers, frames and trailers, for what a good client would never send.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{Message, bytes::Bytes};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};
use tonic::{Code, Status, codegen::http};
use tonic_types::StatusExt;

/// Longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A step of a request's body.
pub enum Step {
    Data(Bytes),
    Trailers(http::HeaderMap),
    /// Nothing more, and no end.
    Hang,
    /// The end, once the sender is dropped.
    Until(oneshot::Receiver<()>),
    /// A byte of this every so often.
    Drip(Bytes, Duration),
}

/// A request's body.
pub struct Steps {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// A connection.
pub struct Raw(SendRequest<Steps>);

/// How a call was answered.
pub struct Answer {
    pub http: u16,
    pub headers: http::HeaderMap,
    /// The bytes of all messages, prefixes included.
    pub data: Bytes,
    /// From the headers or the trailers.
    pub status: Status,
}

impl Body for Steps {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Hang) => {
                self.steps.push_front(Step::Hang);
                return Poll::Pending;
            }
            Some(Step::Until(mut end)) => {
                if Pin::new(&mut end).poll(context).is_pending() {
                    self.steps.push_front(Step::Until(end));
                    return Poll::Pending;
                }
                None
            }
            Some(Step::Drip(mut bytes, pause)) => {
                let byte = bytes.split_to(1);
                let next = if bytes.is_empty() { Step::Hang } else { Step::Drip(bytes, pause) };
                self.steps.push_front(next);
                self.pause = Some(Box::pin(tokio::time::sleep(pause)));
                Some(Ok(Frame::data(byte)))
            }
        })
    }
}

impl Raw {
    /// The same connection.
    pub fn again(&self) -> Self {
        Self(self.0.clone())
    }

    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Sends a request and gives its answer, not yet read.
    pub async fn begin(&self, request: http::Request<Vec<Step>>) -> http::Response<Incoming> {
        let request = request.map(|steps| Steps { steps: steps.into(), pause: None });
        let mut client = self.0.clone();
        timeout(LIMIT, client.send_request(request)).await.expect("no answer").expect("an answer")
    }

    pub async fn send(&self, request: http::Request<Vec<Step>>) -> Answer {
        read(self.begin(request).await).await
    }

    /// Sends a message as a good client would, but for what `change` changes.
    pub async fn call(
        &self,
        path: &str,
        token: &str,
        message: &impl Message,
        change: impl FnOnce(&mut http::Request<Vec<Step>>),
    ) -> Answer {
        let mut request = request(path, token, vec![Step::Data(frame(&message.encode_to_vec()))]);
        change(&mut request);
        self.send(request).await
    }
}

/// Reads an answer to its end.
pub async fn read(response: http::Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let (mut data, mut trailers) = (Vec::new(), None);
    let reading = async {
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            match frame.unwrap().into_data() {
                Ok(more) => data.extend_from_slice(&more),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
    };
    timeout(LIMIT, reading).await.expect("an answer that ends");
    let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(trailers.as_ref()?));
    let status = status.unwrap_or_else(|| Status::unknown("no status"));
    Answer { http: head.status.as_u16(), headers: head.headers, data: data.into(), status }
}

pub fn request(path: &str, token: &str, steps: Vec<Step>) -> http::Request<Vec<Step>> {
    let mut request = http::Request::post(format!("http://door{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if !token.is_empty() {
        request = request.header("authorization", crate::support::bearer(token));
    }
    request.body(steps).unwrap()
}

/// A message with its prefix.
pub fn frame(message: &[u8]) -> Bytes {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &len, message].concat().into()
}

impl Answer {
    /// The answer's one message.
    #[track_caller]
    pub fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status.code(), Code::Ok, "{:?}", self.status);
        M::decode(&self.data[5..]).unwrap()
    }

    #[track_caller]
    pub fn refused(&self, code: Code, reason: &str, names: &str) {
        let details = self.status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {:?}", self.status));
        assert_eq!((self.status.code(), info.reason.as_str()), (code, reason), "{:?}", self.status);
        let named = self.status.message().contains(names) || info.metadata.values().any(|value| value.contains(names));
        assert!(named, "`{names}` is not named in {:?} {info:?}", self.status);
    }
}
