//! EventService: the log.

use futures_util::{StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status, async_trait};

use super::context::caller;
use crate::{
    app::{App, Session, ports::StoredEvent},
    domain::{self, id::AccountId, log::revision::Revision},
    grpc::{
        convert::{
            all,
            event::{filter, to_chain_report, to_event},
            optional,
            revision::{propagation, revision, to_revision},
        },
        request::{metadata::on_behalf_not_allowed, page_token::page},
        status::Refusal,
        stream::{drain::Draining, watch::watched},
    },
    proto::{
        AwaitPropagationRequest, AwaitPropagationResponse, ListEventsRequest, ListEventsResponse,
        VerifyEventChainRequest, VerifyEventChainResponse, WatchEventsRequest, WatchEventsResponse,
        event_service_server::EventService,
    },
};

/// Implements EventService.
pub struct Events {
    /// The use-cases.
    pub app: App,
    /// Completes when the server drains, which ends open watches.
    pub draining: Draining,
}

#[async_trait]
impl EventService for Events {
    type WatchEventsStream = BoxStream<'static, Result<WatchEventsResponse, Status>>;

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let (caller, mut request) = caller(request)?;
        check_own_account(&caller, &request.account_id)?;
        let ((filter, start), (page, list)) = all((filter(&request), page::<_, Revision>(&mut request)))?;
        let after = page.after.or(start);
        let (listed, head) = self.app.list_events(&caller, &filter, after, page.limit).await?;
        let (events, next_page_token) = list.respond(listed, StoredEvent::revision, to_event);
        Ok(Response::new(ListEventsResponse { events, next_page_token, head: Some(to_revision(head)) }))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let (caller, request) = caller(request)?;
        check_own_account(&caller, &request.account_id)?;
        let (account, after) = all((
            optional("account_id", &request.account_id, AccountId::parse),
            revision("after_revision", request.after_revision),
        ))?;
        let watching = self.app.watch_events(&caller, account, after).await?;
        Ok(Response::new(watched(watching, self.draining.clone()).boxed()))
    }

    async fn verify_event_chain(
        &self,
        request: Request<VerifyEventChainRequest>,
    ) -> Result<Response<VerifyEventChainResponse>, Status> {
        let (caller, request) = caller(request)?;
        check_own_account(&caller, &request.account_id)?;
        let (account, start) =
            all((optional("account_id", &request.account_id, AccountId::parse), start(request.start_number)))?;
        let report = self.app.verify_event_chain(&caller, account.as_ref(), start).await?;
        Ok(Response::new(to_chain_report(report)))
    }

    async fn await_propagation(
        &self,
        request: Request<AwaitPropagationRequest>,
    ) -> Result<Response<AwaitPropagationResponse>, Status> {
        let (caller, request) = caller(request)?;
        let awaited = revision("revision", request.revision)?;
        let done = self.app.await_propagation(&caller, awaited).await?;
        Ok(Response::new(AwaitPropagationResponse { propagation: propagation(done) }))
    }
}

/// Refuses a user acted for, unless one account's own events are asked for (A6).
fn check_own_account(caller: &Session, account_id: &str) -> Result<(), Refusal> {
    if caller.on_behalf_of().is_some() && account_id.is_empty() { Err(on_behalf_not_allowed()) } else { Ok(()) }
}

fn start(number: i64) -> Result<i64, domain::Error> {
    match number {
        0 => Ok(1),
        1.. => Ok(number),
        _ => Err(domain::Error::field("start_number", "must not be negative: 0 means the first")),
    }
}
