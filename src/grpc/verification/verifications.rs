//! Answers requests for verifications: the unary call, the batch and each message of a stream. Takes a message's bytes
//! and its caller, tries the fast path, and otherwise decodes the message and takes the slow path.
//!
//! The fast path answers completely or not at all: whatever is wrong, new or unknown to it is left to the slow path, so
//! that each refusal is worded and each rule enforced in one place.

use prost::{Message, bytes::Bytes};
use tonic::Status;

use super::{
    checks::{self, parse_check, parse_checks},
    fast_path::{BatchView, CheckView, RawMessage, ResponseWriter, correlation_id, single},
};
use crate::{
    app::{App, AppError, LookupBuffer, Session, Wait},
    grpc::{
        convert::{all, revision::revision},
        gate::{MemoryReservation, SHAPES, framed},
        status::Refusal,
    },
    proto::{
        StreamVerifyTokensRequest, StreamVerifyTokensResponse, TokenVerification, VerifyTokenRequest,
        VerifyTokenResponse, VerifyTokensRequest, VerifyTokensResponse,
    },
};

const ONE: &str = "latchkey.v1.VerifyTokenRequest";
const BATCH: &str = "latchkey.v1.VerifyTokensRequest";
const STREAMED: &str = "latchkey.v1.StreamVerifyTokensRequest";

/// The type of a request for verifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// VerifyTokenRequest.
    Single,
    /// VerifyTokensRequest.
    Batch,
    /// StreamVerifyTokensRequest.
    Streamed,
}

/// The caller of a verification.
#[derive(Clone, Copy)]
pub enum VerifyingCaller<'a> {
    /// A bearer that the cache knew, when its headers arrived, to be allowed to verify. Building a session would cost
    /// more than the answer.
    Bearer(&'a [u8]),
    /// An authenticated caller.
    Session(&'a Session),
}

/// Answers a unary request, returning the response with gRPC's prefix.
///
/// # Errors
/// INVALID_ARGUMENT, PERMISSION_DENIED; UNAUTHENTICATED if the caller's token ended since; UNAVAILABLE if the answer
/// cannot be known.
pub async fn answer(
    app: &App,
    caller: VerifyingCaller<'_>,
    wait: Wait,
    kind: RequestKind,
    message: Bytes,
    reservation: &mut MemoryReservation,
) -> Result<Bytes, Status> {
    if let Some(answer) = from_memory(app, caller, kind, &message) {
        return Ok(answer);
    }
    // Boxed, so that the fast path does not pay for the size of this future.
    Box::pin(async {
        let known;
        let session = match caller {
            VerifyingCaller::Session(session) => session,
            VerifyingCaller::Bearer(bearer) => {
                known = app.authenticate(bearer, None).await?.waiting(wait);
                &known
            }
        };
        match kind {
            RequestKind::Single => one(app, session, message).await,
            RequestKind::Batch | RequestKind::Streamed => batch(app, session, message, reservation).await,
        }
    })
    .await
}

/// Answers a message of a stream from the cache, if that is possible, after checking the caller again.
#[must_use]
pub fn streamed_from_memory(app: &App, session: &Session, message: &RawMessage) -> Option<RawMessage> {
    from_memory(app, VerifyingCaller::Session(session), RequestKind::Streamed, &message.0).map(RawMessage)
}

/// Answers a message of a stream on the slow path. A refusal that concerns only this message is returned as a response,
/// so that the stream goes on.
///
/// # Errors
/// The caller's authority has ended, or the message cannot be decoded.
pub async fn streamed(app: App, session: Session, message: RawMessage) -> Result<RawMessage, Status> {
    // Read by itself: a message whose lists are too long is answered without being decoded.
    let correlation_id = correlation_id(&message.0).ok_or_else(Refusal::undecodable)?;
    if let Err(error) = app.may_verify(&session).await {
        let refusal = Refusal::from(error);
        let ends = refusal.ends_authority();
        return if ends { Err(refusal.into()) } else { Ok(failed(correlation_id, refusal)) };
    }
    if let Err(refusal) = SHAPES.check(STREAMED, &message.0) {
        return Ok(failed(correlation_id, refusal));
    }
    let message: StreamVerifyTokensRequest = decode(message.0)?;
    Ok(match results(&app, &session, message).await {
        Ok(results) => RawMessage::of(&StreamVerifyTokensResponse { correlation_id, results, error: None }),
        Err(error) => failed(correlation_id, error.into()),
    })
}

/// Answers from the cache, or returns `None` if any part of the answer is not there. Lease, clock and the caller's own
/// entry are read here, with the message's bytes already in memory (V1).
fn from_memory(app: &App, caller: VerifyingCaller<'_>, kind: RequestKind, message: &[u8]) -> Option<Bytes> {
    let reader = app.cache_reader();
    if kind == RequestKind::Single {
        let asked = CheckView::read(message)?;
        // The token's entry is prefetched while the caller is checked.
        let token = reader.prefetch(asked.token);
        let memory = caller.memory(app, reader)?;
        let requirement = asked.requirement(|name| memory.permission(name))?;
        return single(&memory.memory().answer(&token, requirement.as_ref(), &mut LookupBuffer::default())?);
    }
    let memory = caller.memory(app, reader)?;
    let known = |name: &str| memory.permission(name);
    let batch = if kind == RequestKind::Batch {
        BatchView::read(message, known)
    } else {
        BatchView::read_message(message, known)
    }?;
    let checks = batch.questions();
    let mut many = match kind {
        RequestKind::Streamed => ResponseWriter::of_message(batch.correlation_id, checks.len()),
        RequestKind::Single | RequestKind::Batch => ResponseWriter::new(checks.len()),
    };
    memory.memory().verify_many(&checks, |_, answer| many.add(answer));
    if kind == RequestKind::Streamed { many.finish_message() } else { many.finish() }
}

impl VerifyingCaller<'_> {
    fn memory<'a>(&self, app: &'a App, reader: crate::app::CacheReader<'a>) -> Option<crate::app::FromMemory<'a>> {
        match self {
            Self::Bearer(bearer) => app.verify_from_memory(reader, bearer),
            Self::Session(session) => app.session_from_memory(reader, session),
        }
    }
}

async fn one(app: &App, session: &Session, message: Bytes) -> Result<Bytes, Status> {
    SHAPES.check(ONE, &message)?;
    let request: VerifyTokenRequest = decode(message)?;
    let (check, min_revision) =
        all((parse_check(request.token, request.requirement), revision("min_revision", request.min_revision)))?;
    app.may_verify(session).await?;
    app.await_min_revision(session, min_revision).await?;
    let verification = Some(checks::answer(app, check).await?);
    Ok(framed(&VerifyTokenResponse { verification }))
}

async fn batch(
    app: &App,
    session: &Session,
    message: Bytes,
    reservation: &mut MemoryReservation,
) -> Result<Bytes, Status> {
    reservation.add_decode_overhead(SHAPES.check(BATCH, &message)?)?;
    let request: VerifyTokensRequest = decode(message)?;
    let (checks, min_revision) = all((parse_checks(request.checks), revision("min_revision", request.min_revision)))?;
    app.may_verify(session).await?;
    app.await_min_revision(session, min_revision).await?;
    let results = checks::answer_all(app, checks).await?;
    Ok(framed(&VerifyTokensResponse { results }))
}

async fn results(
    app: &App,
    session: &Session,
    message: StreamVerifyTokensRequest,
) -> Result<Vec<TokenVerification>, AppError> {
    let (checks, min_revision) = all((parse_checks(message.checks), revision("min_revision", message.min_revision)))?;
    app.await_min_revision(session, min_revision).await?;
    checks::answer_all(app, checks).await
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Refusal> {
    M::decode(message).map_err(|_| Refusal::undecodable())
}

fn failed(correlation_id: u64, refusal: Refusal) -> RawMessage {
    let error = Some(refusal.into_stream_error());
    RawMessage::of(&StreamVerifyTokensResponse { correlation_id, results: vec![], error })
}
