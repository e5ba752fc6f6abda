//! What goes into the use-cases and what comes out: domain values, already parsed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::ports::ScannedPage;
use crate::domain::{
    api_key::ApiKey,
    directory::Role,
    id::{AccountId, TeamId, UserId},
    log::revision::{Etag, Revision},
    permissions::{
        catalogue::{Catalogue, PermissionSpec},
        grants::{Grants, Held, TeamScope},
        permission::PermissionSet,
    },
    time::{Span, Timestamp},
    token::PlainToken,
};

/// The user that a service's key acts for (A6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnBehalfOf {
    /// The user's account.
    pub account_id: AccountId,
    /// The user.
    pub user_id: UserId,
}

/// When a key is to expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// At a moment, which must lie in the future.
    At(Timestamp),
    /// This long after the call is judged.
    In(Span),
}

/// A key to mint.
#[derive(Clone, Debug)]
pub struct ApiKeyDraft {
    /// Checked for shape.
    pub name: String,
    /// Checked for shape.
    pub comment: String,
    /// Checked for shape.
    pub metadata: BTreeMap<String, String>,
    /// Checked for shape; names may be unknown.
    pub grants: Grants,
    /// When it expires.
    pub expiry: Expiry,
}

/// An edit of a key's team scope.
#[derive(Clone, Debug)]
pub enum TeamScopeEdit {
    /// Replace it, or take it away.
    Whole(Option<TeamScope>),
    /// Replace one list or both; the key must end up with both non-empty or both empty (K2).
    Parts {
        /// The new teams.
        team_ids: Option<BTreeSet<TeamId>>,
        /// The new permissions.
        permissions: Option<BTreeSet<String>>,
    },
}

/// An edit of a key: what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct ApiKeyEdit {
    /// Checked for shape.
    pub name: Option<String>,
    /// Checked for shape.
    pub comment: Option<String>,
    /// Checked for shape.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Checked for shape; names may be unknown.
    pub account_permissions: Option<BTreeSet<String>>,
    /// Checked for shape; names may be unknown.
    pub team_scope: Option<TeamScopeEdit>,
    /// The new expiry.
    pub expiry: Option<Expiry>,
}

impl ApiKeyEdit {
    /// Reports whether the edit takes authority away whatever the key holds, and does nothing else: of each scope that
    /// it names, nothing is left.
    #[must_use]
    pub fn only_narrows(&self) -> bool {
        let Self { name, comment, metadata, account_permissions, team_scope, expiry } = self;
        let others = name.is_some() || comment.is_some() || metadata.is_some() || expiry.is_some();
        let takes_account = account_permissions.as_ref().map(BTreeSet::is_empty);
        let takes_teams = team_scope.as_ref().map(|edit| matches!(edit, TeamScopeEdit::Whole(None)));
        !others
            && [takes_account, takes_teams].iter().flatten().all(|takes| *takes)
            && (takes_account.is_some() || takes_teams.is_some())
    }
}

/// How a key's state is to change (K6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// ACTIVE to DISABLED.
    Disable,
    /// DISABLED to ACTIVE.
    Enable,
    /// To DELETED, for good.
    Delete,
}

/// What every mutating call takes beside its own arguments.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Go on only if the object still has this etag.
    pub etag: Option<Etag>,
    /// Judge and validate, change nothing.
    pub validate_only: bool,
}

/// The outcome of a mutation.
#[derive(Clone, Debug)]
pub struct Changed<T> {
    /// The object after it.
    pub value: T,
    /// How far it travelled.
    pub propagation: Propagation,
}

/// How far a mutation has travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// No replica answers on the earlier authority any more (V1).
    pub complete: bool,
    /// The revision of the mutation's last event, or the current one if nothing changed.
    pub revision: Revision,
    /// Replicas that had not yet applied it.
    pub pending_replicas: u32,
}

/// A minted key: the one place where a token leaves (K4).
#[derive(Debug)]
pub struct Minted {
    /// The key.
    pub key: ApiKey,
    /// Its token; `None` when nothing was minted because the call only validated.
    pub token: Option<PlainToken>,
    /// How far the mutation travelled.
    pub propagation: Propagation,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listed<T, Cursor> {
    /// The page's items: fewer than were asked for, or none, if it has looked at its share of rows.
    pub items: Vec<T>,
    /// The place that the next page starts behind; `None` on the last.
    pub next: Option<Cursor>,
}

impl<T, Cursor> Listed<T, Cursor> {
    /// Cuts off the item that was read to see whether another page follows.
    pub(super) fn of(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }

    /// Does as [`Self::of`] with what a bounded scan found; if that stopped short, the next page starts where it did.
    pub(super) fn found(found: ScannedPage<T, Cursor>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> Self {
        let Self { items, next } = Self::of(found.items, limit, cursor);
        Self { items, next: next.or(found.looked_through) }
    }
}

/// The catalogue with the roles that new accounts start with.
#[derive(Clone, Debug)]
pub struct CatalogueView {
    /// The permissions.
    pub catalogue: Arc<Catalogue>,
    /// In order of id.
    pub default_roles: Vec<Role>,
}

/// A catalogue to apply.
#[derive(Clone, Debug)]
pub struct CatalogueSpec {
    /// All of them, retired ones included.
    pub permissions: Vec<PermissionSpec>,
    /// Their revisions are ignored.
    pub default_roles: Vec<Role>,
}

/// What the bearer, or the user it acts for, is and may do.
#[derive(Clone, Debug)]
pub struct IdentityView {
    /// The account whose permissions follow.
    pub account_id: AccountId,
    /// The bearer's key; `None` for a user.
    pub key: Option<ApiKey>,
    /// The user acted for.
    pub user_id: Option<UserId>,
    /// What it holds.
    pub held: Held,
    /// What it may put into keys that it makes, account-wide.
    pub grantable_account: PermissionSet,
    /// The same on single teams.
    pub grantable_teams: BTreeMap<TeamId, PermissionSet>,
    /// To print the sets' names.
    pub catalogue: Arc<Catalogue>,
    /// The state that this was judged on.
    pub revision: Revision,
}

/// What a verification of the chain found (V6).
#[derive(Clone, Debug)]
pub struct ChainReport {
    /// How many events were verified.
    pub verified_events: u32,
    /// The event before the first one verified, whose link was taken as it stands: 0 before the first of all, the last
    /// one archived, or the one before the start.
    pub verified_after: Revision,
    /// The last one verified.
    pub verified_through: Revision,
    /// Where to go on; `None` when the head was reached or the chain is broken.
    pub next_start_number: Option<i64>,
    /// The first event that does not fit, and what is wrong with it, for people.
    pub broken: Option<(i64, String)>,
}

/// A history that an operator accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedHistory {
    /// The head as it was found.
    pub before: Revision,
    /// The first revision of the new epoch.
    pub after: Revision,
}
