//! What a mutation reads first, asked for together with its locks: one round trip less for each.
//!
//! PostgreSQL runs what a connection sends in the order in which it is sent, and gives each statement a snapshot of
//! its own: what comes behind the locks sees the state that they hold still (M9).

use std::{collections::BTreeSet, sync::Arc};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::join3;

use crate::{
    app::ports::{Ahead, CallerState},
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

/// What was read, each with what it was asked for. To be taken once: it is of right after the locks.
#[derive(Default)]
pub struct ReadAhead {
    caller: Option<(HashedToken, CallerState)>,
    account: Option<(AccountId, Option<Account>)>,
    missing_teams: Option<(AccountId, BTreeSet<TeamId>, BTreeSet<TeamId>)>,
}

// === impl ReadAhead ===

impl ReadAhead {
    /// Asks for all of it at once.
    pub async fn read(
        conn: &AsyncPgConnection,
        cache: &CatalogueCache,
        changes_catalogue: bool,
        asked: &Ahead,
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
        // Not `try_join`: an answer that nobody waits for would still be on its way when the session goes on.
        let (caller, account, missing_teams) = join3(caller, account, missing_teams).await;
        Ok(Self { caller: caller?, account: account?, missing_teams: missing_teams? })
    }

    pub fn take_caller(&mut self, digest: &HashedToken) -> Option<CallerState> {
        self.caller.take_if(|(asked, _)| asked == digest).map(|(_, caller)| caller)
    }

    pub fn take_account(&mut self, account: &AccountId) -> Option<Option<Account>> {
        self.account.take_if(|(asked, _)| asked == account).map(|(_, found)| found)
    }

    pub fn take_missing_teams(&mut self, account: &AccountId, teams: &BTreeSet<TeamId>) -> Option<BTreeSet<TeamId>> {
        let asked = |(id, asked, _): &mut (_, _, _)| id == account && asked == teams;
        self.missing_teams.take_if(asked).map(|(_, _, missing)| missing)
    }
}

/// Pipelined: one round trip for three statements, each with a snapshot of its own, in this order. All are of one
/// snapshot, or under the lock that holds the catalogue still.
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
