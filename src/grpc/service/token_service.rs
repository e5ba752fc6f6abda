//! TokenService: its streams, GetIdentity and RevokeToken. The gate answers its unary verifications before they come
//! here (`grpc::verification::verifications`).

use std::mem;

use futures_util::{FutureExt, StreamExt, future, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming, async_trait};
use zeroize::Zeroizing;

use super::context::{CallDeadline, caller};
use crate::{
    app::{App, Session, Wait, error::AppError},
    grpc::{
        convert::{revision::propagation, token::to_identity},
        request::metadata::{OnBehalf, credentials},
        status::Refusal,
        stream::{
            bidirectional::{BidirectionalParts, answers},
            drain::{Draining, or_draining},
        },
        streams::token_service_server::TokenService,
        verification::{
            fast_path::RawMessage,
            verifications::{streamed, streamed_from_memory},
        },
    },
    proto::{
        GetIdentityRequest, GetIdentityResponse, ReportLeakedTokenRequest, ReportLeakedTokenResponse,
        RevokeTokenRequest, RevokeTokenResponse,
    },
};

/// Implements TokenService.
pub struct Tokens {
    /// The use-cases.
    pub app: App,
    /// The number of unanswered messages of one stream at which reading stops.
    pub stream_in_flight_max: usize,
    /// Completes when the server drains, which ends open streams.
    pub draining: Draining,
}

#[async_trait]
impl TokenService for Tokens {
    type StreamVerifyTokensStream = BoxStream<'static, Result<RawMessage, Status>>;

    async fn stream_verify_tokens(
        &self,
        request: Request<Streaming<RawMessage>>,
    ) -> Result<Response<Self::StreamVerifyTokensStream>, Status> {
        let (caller, messages) = caller(request)?;
        let app = self.app.clone();
        app.may_verify(&caller).await?;
        let parts = BidirectionalParts {
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
        let identity = self.app.identity(&caller).await?;
        Ok(Response::new(to_identity(identity)))
    }

    /// Revokes the bearer's own token. It may have ended already, so the use-case authenticates it.
    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let credentials = credentials(request.metadata().as_ref(), OnBehalf::Refused)?;
        let deadline = request.extensions().get::<CallDeadline>().and_then(|deadline| deadline.0);
        let wait = Wait { deadline, skip: request.get_ref().skip_propagation_wait };
        let done = self.app.revoke_token(credentials.bearer, wait).await?;
        Ok(Response::new(RevokeTokenResponse { propagation: propagation(done) }))
    }

    async fn report_leaked_token(
        &self,
        request: Request<ReportLeakedTokenRequest>,
    ) -> Result<Response<ReportLeakedTokenResponse>, Status> {
        let (_, mut request) = caller(request)?;
        drop(Zeroizing::new(mem::take(&mut request.token)));
        Err(AppError::NotImplemented("ReportLeakedToken").into())
    }
}

/// Waits until the caller's authority ends, and returns the reason.
async fn authority_ended(app: App, caller: Session) -> Status {
    app.session_ended(&caller).await;
    match app.may_verify(&caller).await {
        Err(error) => error.into(),
        // The authority came back at once, or ended in a way that a check does not see: the client has to open a new
        // stream.
        Ok(()) => Refusal::session_ended().into(),
    }
}
