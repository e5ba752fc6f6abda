//! Authentication (A1, A6): a bearer token, perhaps for a user, becomes a session, which is checked again later.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    requester::{Actor, Requester, check_impersonation, check_live, live_user},
    session::Session,
};
use crate::{
    app::{
        App,
        error::AppError,
        fairness::{
            fair_queue::{Payer, QueuePermit},
            reading::BoundedReader,
        },
        ports::Lane,
        propagation::wait::Wait,
        types::OnBehalfOf,
    },
    verify::Entry,
};

// === impl App ===

impl App {
    /// Takes the caller of a request from its bearer token and the user it acts for (A6).
    ///
    /// # Errors
    /// The token is not VALID now, or it may not act for the user, or that cannot be known.
    pub async fn authenticate(&self, bearer: &[u8], on_behalf_of: Option<OnBehalfOf>) -> Result<Session, AppError> {
        self.authenticate_in(Lane::Callers, bearer, on_behalf_of).await
    }

    /// Does as [`Self::authenticate`], but looks the user up in a given lane: a call that can only take authority away
    /// waits behind no other kind.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn authenticate_in(
        &self,
        lane: Lane,
        bearer: &[u8],
        on_behalf_of: Option<OnBehalfOf>,
    ) -> Result<Session, AppError> {
        let verification = self.verifier().verify(bearer, None).await?;
        check_live(verification.outcome())?;
        let entry = verification.entry().cloned().ok_or(AppError::Internal("VALID without an entry"))?;
        if let Some(user) = &on_behalf_of {
            check_impersonation(entry.facts())?;
            // Judged again by the use-case: here so that who calls is known before the request is read (M8).
            live_user(self.read_as(lane, &Payer::user(user)).await?.as_mut(), user).await?;
        }
        let (key_account_id, digest) = (entry.facts().account_id.clone(), *entry.digest());
        Ok(Session {
            entry: Arc::new(ArcSwap::new(entry)),
            key_account_id,
            digest,
            on_behalf_of,
            wait: Wait::default(),
        })
    }

    /// Returns what the caller's token is good for now: from memory while its entry stands, else read again.
    ///
    /// # Errors
    /// The token is no longer VALID, or that cannot be known.
    pub(crate) async fn current_entry(&self, session: &Session) -> Result<Arc<Entry>, AppError> {
        let entry = session.entry.load_full();
        if self.verifier().still_good(&entry) {
            return Ok(entry);
        }
        let verification = self.verifier().verify_again(&entry).await?;
        check_live(verification.outcome())?;
        let entry = verification.entry().cloned().ok_or(AppError::Internal("VALID without an entry"))?;
        session.entry.store(entry.clone());
        Ok(entry)
    }

    /// Checks a caller again whose message came after it was authenticated.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn check_session(&self, session: &Session) -> Result<(), AppError> {
        self.current_entry(session).await.map(drop)
    }

    /// Does as [`Self::current_entry`], but counts no use of the token while its entry stands (K9): for what a caller
    /// is sent without asking.
    pub(crate) async fn standing_entry(&self, session: &Session) -> Result<Arc<Entry>, AppError> {
        let entry = session.entry.load_full();
        if self.verifier().stands(&entry) { Ok(entry) } else { self.current_entry(session).await }
    }

    /// Reports whether the caller's entry stands as it was last read. Counts no use of the token (K9).
    pub(crate) fn entry_stands(&self, session: &Session) -> bool {
        self.verifier().stands(&session.entry.load())
    }

    /// Opens a snapshot and judges the caller in it, when its turn to read has come.
    pub(crate) async fn open(&self, session: &Session) -> Result<(BoundedReader, Actor), AppError> {
        let mut reader = self.read_as(Lane::Reads, &session.payer()).await?;
        let actor = Requester::Session(session.clone()).actor(reader.as_mut()).await?;
        Ok((reader, actor))
    }

    /// Does as [`Self::open`] for one of the caller's watches, whose turn it is.
    pub(crate) async fn open_watch(
        &self,
        session: &Session,
        turn: QueuePermit,
    ) -> Result<(BoundedReader, Actor), AppError> {
        let mut reader = self.read_as_watch(turn).await?;
        let actor = Requester::Session(session.clone()).actor(reader.as_mut()).await?;
        Ok((reader, actor))
    }
}
