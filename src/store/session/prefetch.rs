//! Prefetches what a mutation reads first, together with its locks: one round trip less for each read.
//!
//! PostgreSQL runs what a connection sends in the order in which it is sent, and gives each statement a snapshot of
//! its own: what is sent behind the locks sees the state that they keep from changing (M9).

use std::{collections::BTreeSet, sync::Arc};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::join3;

use crate::{
    app::ports::{CallerState, Prefetch},
    domain::{
        directory::Account,
        id::{AccountId, TeamId},
        token::HashedToken,
    },
    store::{
        log::events,
        objects::{
            accounts,
            catalogue::{self, CatalogueCache},
            teams,
        },
        replica::fill,
    },
};

/// Holds what was prefetched, each with its arguments. Each is taken once: it is the state right after the locks.
#[derive(Default)]
pub struct Prefetched {
    caller: Option<(HashedToken, CallerState)>,
    account: Option<(AccountId, Option<Account>)>,
    missing_teams: Option<(AccountId, BTreeSet<TeamId>, BTreeSet<TeamId>)>,
}

// === impl Prefetched ===

impl Prefetched {
    /// Sends all the reads at once.
    pub async fn read(
        conn: &AsyncPgConnection,
        cache: &CatalogueCache,
        changes_catalogue: bool,
        asked: &Prefetch,
    ) -> QueryResult<Self> {
        let caller = async {
            let Some(digest) = asked.caller else { return Ok(None) };
            caller(conn, cache, changes_catalogue, &digest).await.map(|caller| Some((digest, caller)))
        };
        let account = async {
            let Some(id) = &asked.account else { return Ok(None) };
            accounts::get(conn, id).await.map(|account| Some((id.clone(), account)))
        };
        let missing_teams = async {
            let Some(id) = &asked.account else { return Ok(None) };
            let missing = teams::missing(conn, id, &asked.teams).await;
            missing.map(|missing| Some((id.clone(), asked.teams.clone(), missing)))
        };
        // Not `try_join`: it would leave unread answers on the connection when one read fails.
        let (caller, account, missing_teams) = join3(caller, account, missing_teams).await;
        Ok(Self { caller: caller?, account: account?, missing_teams: missing_teams? })
    }

    /// Takes the caller, if it was prefetched for this token.
    pub fn take_caller(&mut self, digest: &HashedToken) -> Option<CallerState> {
        self.caller.take_if(|(asked, _)| asked == digest).map(|(_, caller)| caller)
    }

    /// Takes the account, if it was prefetched: `None` inside if it does not exist.
    pub fn take_account(&mut self, account: &AccountId) -> Option<Option<Account>> {
        self.account.take_if(|(asked, _)| asked == account).map(|(_, found)| found)
    }

    /// Takes the missing ones of these teams, if they were prefetched.
    pub fn take_missing_teams(&mut self, account: &AccountId, teams: &BTreeSet<TeamId>) -> Option<BTreeSet<TeamId>> {
        let asked = |(id, asked, _): &mut (_, _, _)| id == account && asked == teams;
        self.missing_teams.take_if(asked).map(|(_, _, missing)| missing)
    }
}

/// Reads what a caller is judged by.
///
/// Pipelined: one round trip for three statements, each with a snapshot of its own, in this order. All read one
/// snapshot, or run under the lock that keeps the catalogue from changing.
pub async fn caller(
    conn: &AsyncPgConnection,
    cache: &CatalogueCache,
    changes_catalogue: bool,
    digest: &HashedToken,
) -> QueryResult<CallerState> {
    let catalogue = async {
        if changes_catalogue {
            catalogue::load(conn).await.map(|(_, catalogue)| catalogue)
        } else {
            cache.current(conn).await
        }
    };
    let token = fill::read(conn, std::slice::from_ref(digest), &[]);
    // Not `try_join`, as above.
    let (catalogue, now, token) = join3(catalogue, events::now(conn), token).await;
    let (catalogue, now) = (catalogue?, now?);
    let token = token?;
    let granted = token.grants();
    let fill = token.into_fill(Arc::clone(&catalogue))?;
    Ok(CallerState { catalogue, now, token: fill.token.map(|(_, facts)| facts), granted })
}
