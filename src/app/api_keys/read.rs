//! Reading keys (M3).

use super::load_visible;
use crate::{
    app::{
        App,
        caller::session::Session,
        error::AppError,
        ports::{ApiKeyFilter, Page, ScannedPage},
        types::Listed,
    },
    domain::{
        Error as RuleError, ObjectKind,
        api_key::ApiKey,
        authority::Managed,
        directory::AccountState,
        id::{AccountId, KeyId},
    },
};

impl App {
    /// Reads a key that the caller may view, deleted ones included.
    ///
    /// # Errors
    /// NOT_FOUND for what is absent or invisible (M8).
    pub async fn get_api_key(&self, session: &Session, account: &AccountId, key: KeyId) -> Result<ApiKey, AppError> {
        let (mut reader, actor) = self.open(session).await?;
        let found = load_visible(reader.as_mut(), &actor, account, key).await;
        // An answer that there is no such key is also a read.
        self.trace_key_read(&actor, account, "get_api_key");
        Ok(found?.shown_at(actor.now))
    }

    /// Lists the keys that the caller may view, newest first; filters apply after visibility (M3).
    ///
    /// A page examines a share of rows, whatever passes the filter: keys of the account if the caller may view them
    /// all, else keys on the teams that it manages. So the place where it ends reveals no other key (M8).
    ///
    /// # Errors
    /// PERMISSION_DENIED without any managing authority, or for a team that is not managed.
    pub async fn list_api_keys(
        &self,
        session: &Session,
        account: &AccountId,
        filter: &ApiKeyFilter,
        page: Page<KeyId>,
    ) -> Result<Listed<ApiKey, KeyId>, AppError> {
        let (mut reader, actor) = self.open(session).await?;
        actor.reach(account)?;
        let managed = actor.caller.as_ref().map_or(Managed::Account, |caller| caller.managed(&actor.catalogue));
        managed.require_any()?;
        self.trace_key_read(&actor, account, "list_api_keys");
        if let Some(team) = &filter.team_id {
            managed.may_name(team)?;
        }
        let found = reader.account(account).await?.filter(|account| account.state != AccountState::Deleted);
        let found = found.ok_or(RuleError::NotFound(ObjectKind::Account))?;
        if filter.team_id.as_ref().is_some_and(|team| found.purging_team_ids.contains(team)) {
            // It was deleted: no key names it any more, whether the purge has come to it or not.
            return Ok(Listed { items: Vec::new(), next: None });
        }
        let rows_max = self.limits().list_scan_rows_max;
        let found = reader.api_keys(account, &managed, filter, &page.with_one_more(), rows_max).await?;
        let items = found.items.into_iter().map(|key| key.shown_at(actor.now)).collect();
        Ok(Listed::found(ScannedPage { items, ..found }, page.limit, |key| key.key_id))
    }
}
