//! The one way in for questions about tokens: the unary call, the batch and each message of a stream. It takes the bytes
//! of a message and its caller, answers from memory if that has everything, and else takes the message apart and asks.
//!
//! The answer from memory is right in every respect or it is not given: whatever it meets that is wrong, new or unknown
//! it leaves to the slow path, so that no refusal is worded twice and no rule stands twice.

use prost::{Message, bytes::Bytes};
use tonic::Status;

use super::{
    hot::{Batch, Many, Raw, Single, correlation_id, single},
    verifier::{self, question, questions},
};
use crate::{
    app::{App, Error, LookupBuffer, Session, Wait},
    grpc::{
        convert::{all, revision::revision},
        door::{Reservation, SHAPES, framed},
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

/// A message's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// VerifyTokenRequest.
    One,
    /// VerifyTokensRequest.
    Batch,
    /// StreamVerifyTokensRequest.
    Streamed,
}

/// Who asks.
#[derive(Clone, Copy)]
pub enum Caller<'a> {
    /// A bearer whom memory knew as one who may verify, when its headers came. A session would cost more than the answer.
    Bearer(&'a [u8]),
    /// A caller who was authenticated.
    Session(&'a Session),
}

/// Answers a unary call, with gRPC's prefix.
///
/// # Errors
/// INVALID_ARGUMENT, PERMISSION_DENIED; UNAUTHENTICATED if the caller's token ended since; UNAVAILABLE if the answer
/// cannot be known.
pub async fn answer(
    app: &App,
    caller: Caller<'_>,
    wait: Wait,
    form: Form,
    message: Bytes,
    room: &mut Reservation,
) -> Result<Bytes, Status> {
    if let Some(answer) = from_memory(app, caller, form, &message) {
        return Ok(answer);
    }
    // Boxed, so that an answer from memory does not pay for the room of this.
    Box::pin(async {
        let known;
        let session = match caller {
            Caller::Session(session) => session,
            Caller::Bearer(bearer) => {
                known = app.authenticate(bearer, None).await?.waiting(wait);
                &known
            }
        };
        match form {
            Form::One => one(app, session, message).await,
            Form::Batch | Form::Streamed => batch(app, session, message, room).await,
        }
    })
    .await
}

/// Answers a message of a stream, if memory can; the caller is looked at anew, for each message.
#[must_use]
pub fn streamed_from_memory(app: &App, session: &Session, message: &Raw) -> Option<Raw> {
    from_memory(app, Caller::Session(session), Form::Streamed, &message.0).map(Raw)
}

/// Answers a message of a stream by asking. What only this message is refused for is data, so that the stream goes on.
///
/// # Errors
/// The caller may go on no longer, or the message is none.
pub async fn streamed(app: App, session: Session, message: Raw) -> Result<Raw, Status> {
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
        Ok(results) => Raw::of(&StreamVerifyTokensResponse { correlation_id, results, error: None }),
        Err(error) => failed(correlation_id, error.into()),
    })
}

/// The answer from memory; `None` if there is not all of it. The message is in hand: only now are lease and clock looked
/// at, and the caller's own entry on them (V1).
fn from_memory(app: &App, caller: Caller<'_>, form: Form, message: &[u8]) -> Option<Bytes> {
    let reader = app.cache_reader();
    if form == Form::One {
        let asked = Single::read(message)?;
        // Its entry comes while the caller is looked at.
        let token = reader.prefetch(asked.token);
        let memory = caller.memory(app, reader)?;
        let requirement = asked.requirement(|name| memory.permission(name))?;
        return single(&memory.memory().answer(&token, requirement.as_ref(), &mut LookupBuffer::default())?);
    }
    let memory = caller.memory(app, reader)?;
    let known = |name: &str| memory.permission(name);
    let batch = if form == Form::Batch { Batch::read(message, known) } else { Batch::read_message(message, known) }?;
    let questions = batch.questions();
    let mut many = match form {
        Form::Streamed => Many::of_message(batch.correlation_id, questions.len()),
        Form::One | Form::Batch => Many::new(questions.len()),
    };
    memory.memory().verify_many(&questions, |_, answer| many.add(answer));
    if form == Form::Streamed { many.finish_message() } else { many.finish() }
}

impl Caller<'_> {
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
    let (question, min_revision) =
        all((question(request.token, request.requirement), revision("min_revision", request.min_revision)))?;
    app.may_verify(session).await?;
    app.await_min_revision(session, min_revision).await?;
    let verification = Some(verifier::answer(app, question).await?);
    Ok(framed(&VerifyTokenResponse { verification }))
}

async fn batch(app: &App, session: &Session, message: Bytes, room: &mut Reservation) -> Result<Bytes, Status> {
    room.weigh(SHAPES.check(BATCH, &message)?)?;
    let request: VerifyTokensRequest = decode(message)?;
    let (questions, min_revision) = all((questions(request.checks), revision("min_revision", request.min_revision)))?;
    app.may_verify(session).await?;
    app.await_min_revision(session, min_revision).await?;
    let results = verifier::answer_all(app, questions).await?;
    Ok(framed(&VerifyTokensResponse { results }))
}

async fn results(
    app: &App,
    session: &Session,
    message: StreamVerifyTokensRequest,
) -> Result<Vec<TokenVerification>, Error> {
    let (questions, min_revision) = all((questions(message.checks), revision("min_revision", message.min_revision)))?;
    app.await_min_revision(session, min_revision).await?;
    verifier::answer_all(app, questions).await
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Refusal> {
    M::decode(message).map_err(|_| Refusal::undecodable())
}

fn failed(correlation_id: u64, refusal: Refusal) -> Raw {
    let error = Some(refusal.into_stream_error());
    Raw::of(&StreamVerifyTokensResponse { correlation_id, results: vec![], error })
}
