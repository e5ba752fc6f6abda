//! Lists keys: which rows a page reads, and how far.
//!
//! A page walks one index in the order of the list and looks at no more rows than its share, however few pass the
//! filter: of the account's keys, or of what names the teams that are asked for or managed. The texts are put together
//! from fixed pieces by what is asked, so that the planner sees just that; values are bound, `$1` is the account.

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::api_keys::{KeyRow, select_sql};
use crate::{
    app::ports::{ApiKeyFilter, Page, ScannedPage},
    domain::{
        api_key::ApiKey,
        authority::Managed,
        id::{AccountId, KeyId, TeamId},
    },
    store::sql::{
        rows::KeyIdRow,
        statement::{Statement, statement},
        values::items,
        walk::IndexWalk,
    },
};

/// The least number of keys that a list looks for, however small the page.
const LOOKED_FOR_MIN: u32 = 64;
/// The share of one of many teams is at least so large.
const TEAM_SHARE_MIN: u32 = 16;

/// Selects the rows that a page reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The account's keys.
    Account,
    /// The keys that name one team: `$2`.
    Team,
    /// The keys that name any of the teams in `$2`, a share of each.
    Teams {
        /// How many rows of each team.
        share: u32,
    },
}

/// Holds the statements of a page.
#[derive(Clone, Debug)]
pub struct KeyListSql {
    /// The keys.
    pub page: String,
    /// The last row that the page looked at, if it came to the end of its share. Its values are the first of the
    /// page's. `None` if the page looks at no row that it does not return.
    pub reached: Option<String>,
}

/// Holds the arguments of a list.
struct KeyListQuery<'a> {
    account: &'a AccountId,
    teams: TeamSelection<'a>,
    filter: &'a ApiKeyFilter,
    page: &'a Page<KeyId>,
    rows_max: u32,
}

enum TeamSelection<'a> {
    Any,
    One(&'a TeamId),
    Many(Vec<String>),
}

/// Lists the keys that `visible` covers (M3), then filtered, newest first.
pub async fn list(
    conn: &mut AsyncPgConnection,
    account: &AccountId,
    visible: &Managed,
    filter: &ApiKeyFilter,
    page: &Page<KeyId>,
    rows_max: u32,
) -> QueryResult<ScannedPage<ApiKey, KeyId>> {
    let Some(teams) = TeamSelection::of(visible, filter) else {
        return Ok(ScannedPage { items: Vec::new(), looked_through: None });
    };
    let query = KeyListQuery { account, teams, filter, page, rows_max };
    let mut rows = query.rows();
    loop {
        let found = query.run(conn, rows).await?;
        match query.more_rows(rows) {
            // Most pages of a manager of a few teams are full with a small share of each.
            Some(more) if found.looked_through.is_some() => rows = more,
            _ => return Ok(found),
        }
    }
}

/// Returns the statements that [`list`] runs.
///
/// The literal limits are for the planner. It takes a bound one for a tenth of all rows, finds a plan for the page that
/// it is to be cheaper, and so plans every run anew, which takes half as long as the run.
#[must_use]
pub fn list_sql(rows: Rows, filter: &ApiKeyFilter, page: &Page<KeyId>, rows_max: u32) -> KeyListSql {
    let mut binds = 1;
    let mut bind = || {
        binds += 1;
        binds
    };
    if rows != Rows::Account {
        bind();
    }
    let after = page.after.map(|_| format!("${}", bind()));
    let account = ("account_id", "$1".to_owned());
    let kept = if filter.show_deleted { "" } else { " AND k.state <> 'deleted'" };
    let mut passes = String::new();
    if filter.permission.is_some() {
        let n = bind();
        passes += &format!(" AND (${n} = ANY(k.account_permissions) OR ${n} = ANY(k.team_permissions))");
    }
    if !filter.states.is_empty() {
        passes += &format!(" AND k.state = ANY(${})", bind());
    }
    let wanted = looked_for(page.limit);
    let at_share = format!("OFFSET {} LIMIT 1", rows_max - 1);
    // A key by its id, whatever the planner thinks of how many pass: a look-up for each row, and no other way.
    let look_up =
        format!("CROSS JOIN LATERAL (SELECT * FROM api_keys k WHERE k.key_id = t.key_id{kept}{passes} LIMIT 1) k");
    let (keys, reached) = match rows {
        Rows::Account => {
            let walk = IndexWalk { alias: "k", equal: &[account], last: "key_id", after, descending: true };
            let order = walk.order();
            let walk = format!("api_keys k WHERE {}{kept} {order}", walk.condition());
            if passes.is_empty() {
                (format!("SELECT * FROM {walk} LIMIT {wanted}"), None)
            } else {
                let looked = format!("SELECT * FROM {walk} LIMIT {rows_max}");
                let keys = format!("SELECT * FROM ({looked}) k WHERE true{passes} {order} LIMIT {wanted}");
                (keys, Some(format!("SELECT k.key_id FROM {walk} {at_share}")))
            }
        }
        Rows::Team => {
            let equal = [account, ("team_id", "$2".to_owned())];
            let walk = IndexWalk { alias: "t", equal: &equal, last: "key_id", after, descending: true };
            let order = walk.order();
            let walk = format!(
                "SELECT t.account_id, t.team_id, t.key_id FROM api_key_teams t WHERE {} {order}",
                walk.condition()
            );
            let keys = format!("SELECT k.* FROM ({walk} LIMIT {rows_max}) t {look_up} {order} LIMIT {wanted}");
            (keys, Some(format!("{walk} {at_share}")))
        }
        Rows::Teams { share } => {
            // Of each team its share. What is older than the oldest of a full share is left for the next page: another
            // team's keys between would be shown too early.
            let equal = [account, ("team_id", "m.team_id".to_owned())];
            let walk = IndexWalk { alias: "t", equal: &equal, last: "key_id", after, descending: true };
            let (condition, order) = (walk.condition(), walk.order());
            let looked = format!(
                "WITH looked AS MATERIALIZED (SELECT t.key_id, t.place FROM unnest($2) AS m (team_id) CROSS JOIN LATERAL ( \
                 SELECT t.key_id, row_number() OVER ({order}) AS place FROM api_key_teams t \
                 WHERE {condition} {order} LIMIT {share}) t), \
                 reached AS MATERIALIZED (SELECT l.key_id FROM looked l WHERE l.place = {share} ORDER BY l.key_id DESC LIMIT 1)"
            );
            let keys = format!(
                "{looked} SELECT k.* FROM (SELECT DISTINCT l.key_id FROM looked l \
                 WHERE l.key_id >= COALESCE((SELECT r.key_id FROM reached r), '00000000-0000-0000-0000-000000000000') \
                 ORDER BY l.key_id DESC) t {look_up} ORDER BY t.key_id DESC LIMIT {wanted}"
            );
            (keys, Some(format!("{looked} SELECT r.key_id FROM reached r")))
        }
    };
    KeyListSql { page: format!("{} LIMIT ${}", select_sql(&keys, "$1"), bind()), reached }
}

/// Rounds up to a power of two, so that there are few texts.
fn looked_for(limit: u32) -> u32 {
    limit.max(LOOKED_FOR_MIN).checked_next_power_of_two().unwrap_or(u32::MAX)
}

// === impl TeamSelection ===

impl<'a> TeamSelection<'a> {
    /// Returns the teams to read; `None` if nothing is visible on them.
    fn of(visible: &'a Managed, filter: &'a ApiKeyFilter) -> Option<Self> {
        match (visible, &filter.team_id) {
            (Managed::Account, None) => Some(Self::Any),
            (Managed::Account, Some(team)) => Some(Self::One(team)),
            (Managed::Teams(teams), Some(team)) => teams.contains(team).then_some(Self::One(team)),
            (Managed::Teams(teams), None) if teams.len() == 1 => teams.first().map(Self::One),
            (Managed::Teams(teams), None) => Some(Self::Many(items(teams))),
            (Managed::Nothing, _) => None,
        }
    }
}

// === impl KeyListQuery ===

impl KeyListQuery<'_> {
    /// Returns the rows to read first.
    fn rows(&self) -> Rows {
        match &self.teams {
            TeamSelection::Any => Rows::Account,
            TeamSelection::One(_) => Rows::Team,
            TeamSelection::Many(_) => Rows::Teams { share: self.share().min(looked_for(self.page.limit)) },
        }
    }

    /// Returns more rows of as many teams, if the share allows them.
    fn more_rows(&self, rows: Rows) -> Option<Rows> {
        let more = Rows::Teams { share: self.share() };
        (matches!(rows, Rows::Teams { .. }) && rows != more).then_some(more)
    }

    /// Returns each team's part of the rows, a power of four: few texts.
    fn share(&self) -> u32 {
        let teams = if let TeamSelection::Many(teams) = &self.teams { teams.len() } else { 1 };
        let even = self.rows_max / u32::try_from(teams.max(1)).unwrap_or(u32::MAX);
        1 << (even.max(TEAM_SHARE_MIN).ilog2() & !1)
    }

    async fn run(&self, conn: &mut AsyncPgConnection, rows: Rows) -> QueryResult<ScannedPage<ApiKey, KeyId>> {
        let KeyListSql { page, reached } = list_sql(rows, self.filter, self.page, self.rows_max);
        let mut query = self.bind_rows(statement(page));
        if let Some(permission) = &self.filter.permission {
            query = query.bind::<Text, _>(permission);
        }
        if !self.filter.states.is_empty() {
            let states: Vec<_> = self.filter.states.iter().map(|state| state.as_str()).collect();
            query = query.bind::<Array<Text>, _>(states);
        }
        let rows: Vec<KeyRow> = query.bind::<BigInt, _>(i64::from(self.page.limit)).load(conn).await?;
        let items = rows.into_iter().map(KeyRow::into_key).collect::<QueryResult<Vec<_>>>()?;
        let looked_through = match reached {
            Some(reached) if items.len() < self.page.limit as usize => {
                let row: Option<KeyIdRow> = self.bind_rows(statement(reached)).get_result(conn).await.optional()?;
                row.map(|row| row.into_id())
            }
            _ => None,
        };
        Ok(ScannedPage { items, looked_through })
    }

    fn bind_rows<'v>(&'v self, query: Statement<'v>) -> Statement<'v> {
        let mut query = query.bind::<Text, _>(self.account.as_str());
        match &self.teams {
            TeamSelection::Any => {}
            TeamSelection::One(team) => query = query.bind::<Text, _>(team.as_str()),
            TeamSelection::Many(teams) => query = query.bind::<Array<Text>, _>(teams.as_slice()),
        }
        match self.page.after {
            Some(after) => query.bind::<SqlUuid, _>(after.as_uuid()),
            None => query,
        }
    }
}
