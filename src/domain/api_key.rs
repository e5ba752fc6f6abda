//! API keys (K1-K9): what is stored of one, and what an edit makes of it.

use std::collections::BTreeMap;

use super::{
    authority::Subject,
    error::Error,
    id::{AccountId, KeyId},
    log::{event::Principal, revision::Revision},
    permissions::grants::Grants,
    time::{Span, Timestamp},
};

/// The longest grace period of a rotation (K8).
pub const GRACE_MAX: Span = Span::from_secs(60 * 60);
/// The grace period if none is asked for (K8).
pub const GRACE_DEFAULT: Span = Span::from_secs(30 * 60);

/// The state of a key (K6). Expiry is not a state: it comes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiKeyState {
    /// Its tokens verify.
    Active,
    /// Its tokens answer DISABLED.
    Disabled,
    /// Permanent.
    Deleted,
}

impl ApiKeyState {
    /// Returns its name in the store and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }

    /// Returns the state of that name.
    #[must_use]
    pub fn from_stored(name: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Deleted].into_iter().find(|state| state.as_str() == name)
    }
}

/// What a manager writes into a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyContent {
    /// See [`super::text::check_name`].
    pub name: String,
    /// See [`super::text::check_comment`].
    pub comment: String,
    /// See [`super::text::check_metadata`]; never an input to authority.
    pub metadata: BTreeMap<String, String>,
    /// What it may do.
    pub grants: Grants,
    /// When it stops verifying; `None` for never (K7).
    pub expire_time: Option<Timestamp>,
}

impl ApiKeyContent {
    /// Returns it as authority sees it.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject { grants: self.grants.clone(), expire_time: self.expire_time }
    }
}

/// A stored key, without its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub key_id: KeyId,
    /// Its account (K1).
    pub account_id: AccountId,
    /// What a manager wrote.
    pub content: ApiKeyContent,
    /// Its state (K6).
    pub state: ApiKeyState,
    /// The current token's prefix and last characters (K4).
    pub token_hint: String,
    /// Who minted it; `None` for `latchkey bootstrap`. Stays on record (K5).
    pub creator: Option<Principal>,
    /// When it was minted.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
    /// When it was deleted.
    pub delete_time: Option<Timestamp>,
    /// When its current token was minted.
    pub rotate_time: Timestamp,
    /// When its previous token ends, if it was rotated (K8); may lie in the past.
    pub retiring_end_time: Option<Timestamp>,
    /// When its current token last answered VALID (K9).
    pub current_token_last_used_time: Option<Timestamp>,
    /// When its previous token last answered VALID (K9).
    pub retiring_token_last_used_time: Option<Timestamp>,
    /// When any of its tokens last answered VALID (K9).
    pub last_used_time: Option<Timestamp>,
    /// The revision of its last event.
    pub revision: Revision,
}

impl ApiKey {
    /// Reports whether its expiry has come.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        self.content.expire_time.is_some_and(|end| now >= end)
    }

    /// Refuses calls that a deleted key does not allow.
    ///
    /// # Errors
    /// [`Error::WrongState`].
    pub fn check_not_deleted(&self) -> Result<(), Error> {
        if self.state == ApiKeyState::Deleted {
            Err(Error::WrongState("the key is deleted, and deletion is permanent".into()))
        } else {
            Ok(())
        }
    }

    /// Refuses to rotate a key that does not verify (K8).
    ///
    /// # Errors
    /// [`Error::WrongState`].
    pub fn check_rotatable(&self, now: Timestamp) -> Result<(), Error> {
        self.check_not_deleted()?;
        if self.state == ApiKeyState::Disabled {
            return Err(Error::WrongState("the key is disabled: enable it before rotating it".into()));
        }
        if self.expired(now) {
            return Err(Error::WrongState("the key is expired: move its expiry before rotating it".into()));
        }
        Ok(())
    }

    /// Returns it as a caller sees it at a moment: of a previous token only what still works.
    #[must_use]
    pub fn shown_at(mut self, now: Timestamp) -> Self {
        let over = self.retiring_end_time.is_none_or(|end| now >= end);
        if over || self.state == ApiKeyState::Deleted {
            self.retiring_end_time = None;
            self.retiring_token_last_used_time = None;
        }
        self
    }

    /// Returns when the token that a rotation replaces ends: after the grace, never past the key's expiry (K8).
    #[must_use]
    pub fn retiring_end(&self, now: Timestamp, grace: Span) -> Timestamp {
        let end = now.saturating_add(grace);
        self.content.expire_time.map_or(end, |expiry| end.min(expiry))
    }
}
