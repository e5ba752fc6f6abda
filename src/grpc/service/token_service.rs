//! TokenService: what a bearer token is good for, now. Its unary verifications are answered before they come here
//! (`verifications`).

use std::mem;

use futures_util::{FutureExt, StreamExt, future, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming, async_trait};
use zeroize::Zeroizing;

use super::entry::{Deadline, Entry, caller};
use crate::{
    app::{App, Session, Wait, error::Error},
    grpc::{
        convert::{revision::propagation, token::to_identity},
        request::metadata::{OnBehalf, credentials},
        status::Refusal,
        stream::{
            bidirectional::{Answering, answers},
            drain::{Draining, or_draining},
        },
        streams::token_service_server::TokenService,
        verification::{
            hot::Raw,
            verifications::{streamed, streamed_from_memory},
        },
    },
    proto::{
        GetIdentityRequest, GetIdentityResponse, ReportLeakedTokenRequest, ReportLeakedTokenResponse,
        RevokeTokenRequest, RevokeTokenResponse,
    },
};

/// The service.
pub struct Tokens {
    /// The way in.
    pub entry: Entry,
    /// Messages of one stream that may be unanswered; beyond them none is read.
    pub stream_in_flight_max: usize,
    /// Ends open streams.
    pub draining: Draining,
}

#[async_trait]
impl TokenService for Tokens {
    type StreamVerifyTokensStream = BoxStream<'static, Result<Raw, Status>>;

    async fn stream_verify_tokens(
        &self,
        request: Request<Streaming<Raw>>,
    ) -> Result<Response<Self::StreamVerifyTokensStream>, Status> {
        let (caller, messages) = caller(request)?;
        let app = self.entry.app.clone();
        app.may_verify(&caller).await?;
        let parts = Answering {
            messages: messages.boxed(),
            ended: or_draining(authority_ended(app.clone(), caller.clone()), self.draining.clone()).boxed(),
            answer: Box::new(move |message| match streamed_from_memory(&app, &caller, &message) {
                Some(answer) => future::ready(Ok(answer)).boxed(),
                None => streamed(app.clone(), caller.clone(), message).boxed(),
            }),
            in_flight_max: self.stream_in_flight_max.max(1),
        };
        Ok(Response::new(answers(parts).boxed()))
    }

    async fn get_identity(
        &self,
        request: Request<GetIdentityRequest>,
    ) -> Result<Response<GetIdentityResponse>, Status> {
        let (caller, GetIdentityRequest {}) = caller(request)?;
        let identity = self.entry.app.identity(&caller).await?;
        Ok(Response::new(to_identity(identity)))
    }

    /// The bearer is what is revoked: it has authentication rules of its own, for the use-case to know.
    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let credentials = credentials(request.metadata().as_ref(), OnBehalf::Refused)?;
        let deadline = request.extensions().get::<Deadline>().and_then(|deadline| deadline.0);
        let wait = Wait { deadline, skip: request.get_ref().skip_propagation_wait };
        let done = self.entry.app.revoke_token(credentials.bearer, wait).await?;
        Ok(Response::new(RevokeTokenResponse { propagation: propagation(done) }))
    }

    async fn report_leaked_token(
        &self,
        request: Request<ReportLeakedTokenRequest>,
    ) -> Result<Response<ReportLeakedTokenResponse>, Status> {
        let (_, mut request) = caller(request)?;
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
