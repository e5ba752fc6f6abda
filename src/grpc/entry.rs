//! The first step of every call, the same for all: who calls? Nothing of a request is looked at
//! before that is known (M8).

use tonic::{Request, Status};

use super::metadata::{OnBehalf, credentials, deadline};
use crate::app::{App, Session, Wait, ports::Lane};

/// The way in: the use-cases, behind authentication.
#[derive(Clone)]
pub struct Entry {
    /// The use-cases.
    pub app: App,
}

impl Entry {
    /// Authenticates the caller and hands over the message, as yet unread.
    ///
    /// # Errors
    /// UNAUTHENTICATED; INVALID_ARGUMENT for metadata that A6 refuses; UNAVAILABLE if who calls
    /// cannot be known.
    pub async fn authenticate<T>(&self, request: Request<T>, on_behalf: OnBehalf) -> Result<(Session, T), Status> {
        self.authenticate_for(Lane::Callers, request, on_behalf).await
    }

    /// The same for a call that can only take authority away: it waits behind no other kind.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn authenticate_to_narrow<T>(
        &self,
        request: Request<T>,
        on_behalf: OnBehalf,
    ) -> Result<(Session, T), Status> {
        self.authenticate_for(Lane::Narrowing, request, on_behalf).await
    }

    async fn authenticate_for<T>(
        &self,
        lane: Lane,
        request: Request<T>,
        on_behalf: OnBehalf,
    ) -> Result<(Session, T), Status> {
        // First of all, and counted from now: authenticating may take its time too.
        let deadline = deadline(request.metadata());
        let (metadata, _, message) = request.into_parts();
        let credentials = credentials(metadata.as_ref(), on_behalf)?;
        let session = self.app.authenticate_in(lane, credentials.bearer, credentials.on_behalf_of).await?;
        Ok((session.waiting(Wait { deadline, skip: false }), message))
    }
}
