//! TokenService: what a bearer token is good for, now.

use std::mem;

use futures_util::{FutureExt, StreamExt, future, stream::BoxStream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, async_trait};
use zeroize::Zeroizing;

use super::{
    convert::{
        all,
        revision::{propagation, revision},
        token::to_identity,
    },
    drain::{Draining, or_draining},
    entry::Entry,
    hot::{self, Raw},
    metadata::{OnBehalf, credentials, deadline},
    status::Refusal,
    stream::{Answering, answers},
    streams::token_service_server::TokenService,
    verifier::{answer, answer_all, question, questions},
};
use crate::{
    app::{App, Session, Wait, error::Error},
    proto::{
        GetIdentityRequest, GetIdentityResponse, ReportLeakedTokenRequest, ReportLeakedTokenResponse,
        RevokeTokenRequest, RevokeTokenResponse, StreamVerifyTokensRequest, StreamVerifyTokensResponse,
        TokenVerification, VerifyTokenRequest, VerifyTokenResponse, VerifyTokensRequest, VerifyTokensResponse,
    },
};

/// The service.
pub struct Tokens {
    /// The way in.
    pub entry: Entry,
    /// Messages of one stream that may be unanswered; beyond them none is read.
    pub stream_in_flight_max: usize,
    /// What the transport accepts, to name it when a message is larger.
    pub message_bytes_max: usize,
    /// Ends open streams.
    pub draining: Draining,
}

#[async_trait]
impl TokenService for Tokens {
    type StreamVerifyTokensStream = BoxStream<'static, Result<Raw, Status>>;

    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let (caller, request) = self.entry.authenticate(request, OnBehalf::Refused).await?;
        let (question, min_revision) =
            all((question(request.token, request.requirement), revision("min_revision", request.min_revision)))?;
        self.entry.app.may_verify(&caller).await?;
        self.entry.app.await_min_revision(&caller, min_revision).await?;
        let verification = Some(answer(&self.entry.app, question).await?);
        Ok(Response::new(VerifyTokenResponse { verification }))
    }

    async fn verify_tokens(
        &self,
        request: Request<VerifyTokensRequest>,
    ) -> Result<Response<VerifyTokensResponse>, Status> {
        let (caller, request) = self.entry.authenticate(request, OnBehalf::Refused).await?;
        let (questions, min_revision) =
            all((questions(request.checks), revision("min_revision", request.min_revision)))?;
        self.entry.app.may_verify(&caller).await?;
        self.entry.app.await_min_revision(&caller, min_revision).await?;
        let results = answer_all(&self.entry.app, questions).await?;
        Ok(Response::new(VerifyTokensResponse { results }))
    }

    async fn stream_verify_tokens(
        &self,
        request: Request<Streaming<Raw>>,
    ) -> Result<Response<Self::StreamVerifyTokensStream>, Status> {
        let (caller, messages) = self.entry.authenticate(request, OnBehalf::Refused).await?;
        let app = self.entry.app.clone();
        app.may_verify(&caller).await?;
        let message_bytes_max = self.message_bytes_max;
        let refused =
            move |status: Status| Refusal::of_transport(&status, message_bytes_max).map_or(status, Status::from);
        let parts = Answering {
            messages: messages.map(move |message| message.map_err(refused)).boxed(),
            ended: or_draining(authority_ended(app.clone(), caller.clone()), self.draining.clone()).boxed(),
            answer: Box::new(move |message| match hot::answer_message(&app, &caller, &message) {
                Some(answer) => future::ready(Ok(answer)).boxed(),
                None => answer_raw(app.clone(), caller.clone(), message, message_bytes_max).boxed(),
            }),
            in_flight_max: self.stream_in_flight_max.max(1),
        };
        Ok(Response::new(answers(parts).boxed()))
    }

    async fn get_identity(
        &self,
        request: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        let (caller, GetIdentityRequest {}) = self.entry.authenticate(request, OnBehalf::Taken).await?;
        let identity = self.entry.app.identity(&caller).await?;
        Ok(Response::new(to_identity(identity)))
    }

    /// The bearer is what is revoked: it has authentication rules of its own, for the use-case to know.
    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let credentials = credentials(request.metadata().as_ref(), OnBehalf::Refused)?;
        let wait = Wait { deadline: deadline(request.metadata()), skip: request.get_ref().skip_propagation_wait };
        let done = self.entry.app.revoke_token(credentials.bearer, wait).await?;
        Ok(Response::new(RevokeTokenResponse { propagation: propagation(done) }))
    }

    async fn report_leaked_token(
        &self,
        request: Request<ReportLeakedTokenRequest>,
    ) -> Result<Response<ReportLeakedTokenResponse>, Status> {
        let (_, mut request) = self.entry.authenticate(request, OnBehalf::Refused).await?;
        drop(Zeroizing::new(mem::take(&mut request.token)));
        Err(Error::NotImplemented("ReportLeakedToken").into())
    }
}

/// Why the caller may go on no longer, once that is so.
async fn authority_ended(app: App, caller: Session) -> Status {
    app.session_ended(&caller).await;
    match app.may_verify(&caller).await {
        Err(error) => error.into(),
        // Its authority came back at once, or ended in a way that a check does not see: start afresh.
        Ok(()) => Refusal::session_ended().into(),
    }
}

/// One message's answer, the long way.
async fn answer_raw(app: App, caller: Session, message: Raw, message_bytes_max: usize) -> Result<Raw, Status> {
    let message = StreamVerifyTokensRequest::decode(message.0).map_err(|error| {
        // As the transport would have said it, had it taken the message apart.
        let status = Status::internal(error.to_string());
        Refusal::of_transport(&status, message_bytes_max).map_or(status, Status::from)
    })?;
    Ok(Raw::of(&answer_message(app, caller, message).await?))
}

/// One message's answer. What only this message is refused for is data, so that the stream goes on.
async fn answer_message(
    app: App,
    caller: Session,
    message: StreamVerifyTokensRequest,
) -> Result<StreamVerifyTokensResponse, Status> {
    let correlation_id = message.correlation_id;
    if let Err(error) = app.may_verify(&caller).await {
        let refusal = Refusal::from(error);
        return if refusal.ends_authority() { Err(refusal.into()) } else { Ok(failed(correlation_id, refusal)) };
    }
    Ok(match results(&app, &caller, message).await {
        Ok(results) => StreamVerifyTokensResponse { correlation_id, results, error: None },
        Err(error) => failed(correlation_id, error.into()),
    })
}

async fn results(
    app: &App,
    caller: &Session,
    message: StreamVerifyTokensRequest,
) -> Result<Vec<TokenVerification>, Error> {
    let (questions, min_revision) = all((questions(message.checks), revision("min_revision", message.min_revision)))?;
    app.await_min_revision(caller, min_revision).await?;
    answer_all(app, questions).await
}

fn failed(correlation_id: u64, refusal: Refusal) -> StreamVerifyTokensResponse {
    StreamVerifyTokensResponse { correlation_id, results: vec![], error: Some(refusal.into_stream_error()) }
}
