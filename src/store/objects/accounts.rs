//! Accounts (A3, A5).

use diesel::{QueryResult, dsl::sql, prelude::*, sql_types::Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::ports::Page,
    domain::{
        directory::{Account, AccountState},
        id::{AccountId, SYSTEM_ACCOUNT, TeamId},
        time::Timestamp,
    },
    store::sql::{
        schema::{accounts, roles, teams, users},
        values::{Time, revision, unreadable},
    },
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = accounts)]
struct AccountRow {
    account_id: String,
    display_name: String,
    state: String,
    api_key_count: i32,
    create_time: Time,
    revision_epoch: i64,
    revision_number: i64,
    deleted_api_key_count: i32,
    delete_time: Option<Time>,
    purging_team_ids: Vec<String>,
    purging: bool,
}

/// Reads an account, deleted ones included.
pub async fn get(mut conn: &AsyncPgConnection, account: &AccountId) -> QueryResult<Option<Account>> {
    let row: Option<AccountRow> = accounts::table.find(account.as_str()).first(&mut conn).await.optional()?;
    row.map(AccountRow::into_account).transpose()
}

/// Lists accounts that are not deleted, `system` excluded, in order of id.
pub async fn list(conn: &mut AsyncPgConnection, page: &Page<AccountId>) -> QueryResult<Vec<Account>> {
    let mut query = accounts::table
        // Not a bound value: then the planner could not use the partial index of just these.
        .filter(sql::<Bool>("state <> 'deleted'"))
        .filter(accounts::account_id.ne(SYSTEM_ACCOUNT))
        .order(accounts::account_id)
        .limit(i64::from(page.limit))
        .into_boxed();
    if let Some(after) = &page.after {
        query = query.filter(accounts::account_id.gt(after.as_str()));
    }
    let rows: Vec<AccountRow> = query.load(conn).await?;
    rows.into_iter().map(AccountRow::into_account).collect()
}

/// Creates or replaces an account's row, but never its key count nor its creation.
///
/// Not an upsert: an account that does not exist cannot be locked, so two callers may both have
/// judged that they create it. The loser must learn so (a unique violation, hence a conflict) and
/// judge again.
pub async fn put(conn: &mut AsyncPgConnection, account: &Account) -> QueryResult<()> {
    let updated = diesel::update(accounts::table.find(account.account_id.as_str()))
        .set((accounts::display_name.eq(&account.display_name), accounts::state.eq(account.state.as_str())))
        .execute(conn)
        .await?;
    if updated == 0 {
        let row = AccountRow {
            account_id: account.account_id.to_string(),
            display_name: account.display_name.clone(),
            state: account.state.as_str().to_owned(),
            api_key_count: 0,
            create_time: Time(account.create_time),
            revision_epoch: account.revision.epoch,
            revision_number: account.revision.number,
            deleted_api_key_count: 0,
            delete_time: None,
            purging_team_ids: Vec::new(),
            purging: false,
        };
        diesel::insert_into(accounts::table).values(row).execute(conn).await?;
    }
    Ok(())
}

impl AccountRow {
    fn into_account(self) -> QueryResult<Account> {
        Ok(Account {
            account_id: AccountId::from_stored(&self.account_id),
            display_name: self.display_name,
            state: AccountState::from_stored(&self.state).ok_or_else(|| unreadable("accounts.state"))?,
            create_time: self.create_time.0,
            api_key_count: u32::try_from(self.api_key_count).map_err(|_| unreadable("accounts.api_key_count"))?,
            deleted_api_key_count: u32::try_from(self.deleted_api_key_count)
                .map_err(|_| unreadable("accounts.deleted_api_key_count"))?,
            purging_team_ids: self.purging_team_ids.iter().map(|id| TeamId::from_stored(id)).collect(),
            is_purging: self.purging,
            revision: revision(self.revision_epoch, self.revision_number),
        })
    }
}

/// Marks an account deleted and removes its users (their roles go by cascade), roles and teams; its
/// keys name no team any more, and `deleted_keys` of them have become deleted ones.
pub async fn delete(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    now: Timestamp,
    deleted_keys: usize,
) -> QueryResult<()> {
    let id = account.as_str();
    diesel::delete(users::table.filter(users::account_id.eq(id))).execute(conn).await?;
    diesel::delete(roles::table.filter(roles::account_id.eq(id))).execute(conn).await?;
    diesel::delete(teams::table.filter(teams::account_id.eq(id))).execute(conn).await?;
    let deleted_keys = i32::try_from(deleted_keys).unwrap_or(i32::MAX);
    diesel::update(accounts::table.find(id))
        .set((
            accounts::state.eq(AccountState::Deleted.as_str()),
            accounts::delete_time.eq(Time(now)),
            accounts::api_key_count.eq(0),
            accounts::deleted_api_key_count.eq(accounts::deleted_api_key_count + deleted_keys),
            accounts::purging_team_ids.eq(Vec::<String>::new()),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Marks an account deleted, and its contents for a later purge: they no longer exist for readers.
pub async fn begin_purge(conn: &mut AsyncPgConnection, account: &AccountId, now: Timestamp) -> QueryResult<()> {
    diesel::update(accounts::table.find(account.as_str()))
        .set((
            accounts::state.eq(AccountState::Deleted.as_str()),
            accounts::delete_time.eq(Time(now)),
            accounts::api_key_count.eq(0),
            accounts::purging_team_ids.eq(Vec::<String>::new()),
            accounts::purging.eq(true),
        ))
        .execute(conn)
        .await?;
    Ok(())
}
