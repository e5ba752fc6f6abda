//! Lists events: which rows of the log a page reads, and how far.
//!
//! A page walks one index in order of number: the log's own, the account's, or the two that know a key's events. It
//! looks at no more rows than its share, however few pass the filter, and reads no more bytes than a page may have.

use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{events::EntryRow, personal};
use crate::{
    app::ports::{EventFilter, Page, ScannedPage, StoredEvent},
    domain::log::{event::Event, revision::Revision},
    store::sql::{
        statement::{Statement, statement},
        values::{Time, revision},
        walk::IndexWalk,
    },
};

/// Bytes of events that a page reads: the one that exceeds it is the last.
const PAGE_BYTES_MAX: u32 = 2 << 20;
/// The least number of events that a list looks for, however small the page.
const LOOKED_FOR_MIN: u32 = 64;

const COLUMNS: &str = "e.number, e.format_version, e.payload, e.hash, e.epoch, e.event_id, e.time, e.kind, \
     e.account_id, e.target_type, e.target_id, e.affected_key_ids";

/// Holds the statements of a page: `$1` is the number to start after.
#[derive(Clone, Debug)]
pub struct EventListSql {
    /// The events.
    pub page: String,
    /// The last row that the page looked at, if it came to the end of its share. Its values are the first of the
    /// page's. `None` if the page looks at no row that it does not return.
    pub reached: Option<String>,
}

#[derive(QueryableByName)]
struct EventRow {
    #[diesel(embed)]
    entry: EntryRow,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = SqlUuid)]
    event_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    time: Time,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    account_id: Option<String>,
    #[diesel(sql_type = Text)]
    target_type: String,
    #[diesel(sql_type = Text)]
    target_id: String,
    #[diesel(sql_type = Array<SqlUuid>)]
    affected_key_ids: Vec<Uuid>,
    /// Bytes of the page up to it.
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

#[derive(QueryableByName)]
struct RevisionRow {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Lists events in order of number, with their links.
pub async fn list(
    conn: &mut AsyncPgConnection,
    filter: &EventFilter,
    page: &Page<i64>,
    rows_max: u32,
) -> QueryResult<ScannedPage<StoredEvent, Revision>> {
    let sql = list_sql(filter, page.limit, rows_max);
    let mut query = bind_rows(statement(sql.page), filter, page);
    if !filter.kinds.is_empty() {
        query = query.bind::<Array<Text>, _>(filter.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    }
    let rows: Vec<EventRow> = query.bind::<BigInt, _>(i64::from(page.limit)).load(conn).await?;
    let bytes = rows.last().map_or(0, |row| row.bytes);
    let mut items: Vec<_> = rows.into_iter().map(EventRow::into_stored).collect();
    unseal(conn, &mut items).await?;
    let looked_through = if items.len() >= page.limit as usize {
        None
    } else if bytes >= i64::from(PAGE_BYTES_MAX) {
        items.last().map(StoredEvent::revision)
    } else if let Some(reached) = sql.reached {
        let row: Option<RevisionRow> = bind_rows(statement(reached), filter, page).get_result(conn).await.optional()?;
        row.map(|row| revision(row.epoch, row.number))
    } else {
        None
    };
    Ok(ScannedPage { items, looked_through })
}

/// Returns the statements that [`list`] runs: from `$1` on, what to walk by, then the kinds, then how many. The literal
/// limits are for the planner, as in [`key_list`](crate::store::objects::key_list).
#[must_use]
pub fn list_sql(filter: &EventFilter, limit: u32, rows_max: u32) -> EventListSql {
    let mut binds = 1;
    let mut bind = || {
        binds += 1;
        binds
    };
    let account = filter.account_id.as_ref().map(|_| format!("${}", bind()));
    let key = filter.key_id.map(|_| (bind(), bind()));
    let kinds = (!filter.kinds.is_empty()).then(|| format!("e.kind = ANY(${})", bind()));
    let wanted = limit.max(LOOKED_FOR_MIN).checked_next_power_of_two().unwrap_or(u32::MAX);
    let share = if kinds.is_some() { rows_max } else { wanted };
    let and = |condition: &Option<String>| condition.iter().map(|sql| format!(" AND {sql}")).collect::<String>();
    let at_share = format!("OFFSET {} LIMIT 1", rows_max - 1);
    let (events, reached) = match key {
        None => {
            let walk = match &account {
                None => "events e WHERE e.number > $1 ORDER BY e.number".to_owned(),
                Some(account) => format!("events e WHERE {}", of_one("account_id", account.clone())),
            };
            let reached = kinds.is_some().then(|| format!("SELECT e.epoch, e.number FROM {walk} {at_share}"));
            (format!("SELECT e.* FROM (SELECT * FROM {walk} LIMIT {share}) e WHERE true{}", and(&kinds)), reached)
        }
        Some((target, affected)) => {
            // One index each, and the first of both. A key is of one account for ever: of another account's key,
            // only the column that shows it is read, and the caller does not learn how many events there are (M8).
            let of_target = of_one("target_id", format!("${target}"));
            let of_account = account.map(|account| format!("e.account_id = {account}"));
            let walk = |share: u32| {
                format!(
                    "(SELECT e.number FROM events e WHERE e.target_type = 'api_key' AND {of_target} LIMIT {share}) \
                     UNION (SELECT a.number FROM event_affected_keys a WHERE a.key_id = ${affected} \
                     AND a.number > $1 ORDER BY a.number LIMIT {share}) ORDER BY number"
                )
            };
            let look_up = |more: &str| {
                format!(
                    "CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.number = n.number{}{more} LIMIT 1) e",
                    and(&of_account)
                )
            };
            let reached = kinds.is_some().then(|| {
                let last = format!("SELECT n.number FROM ({}) n {at_share}", walk(rows_max));
                format!("SELECT e.epoch, e.number FROM ({last}) n {}", look_up(""))
            });
            let first = format!("SELECT n.number FROM ({}) n LIMIT {share}", walk(share));
            (format!("SELECT e.* FROM ({first}) n {}", look_up(&and(&kinds))), reached)
        }
    };
    // The sizes of what is stored elsewhere are known without reading it.
    let page = format!(
        "SELECT {COLUMNS}, e.bytes FROM (SELECT e.*, \
         sum(octet_length(e.payload)) OVER (ORDER BY e.number ROWS UNBOUNDED PRECEDING) AS bytes \
         FROM ({events} ORDER BY e.number LIMIT {wanted}) e) e \
         WHERE e.bytes - octet_length(e.payload) < {PAGE_BYTES_MAX} ORDER BY e.number LIMIT ${}",
        bind()
    );
    EventListSql { page, reached }
}

/// Returns the condition and the order of a walk of the events after `$1` that have one value in a column.
fn of_one(column: &str, value: String) -> String {
    let equal = [(column, value)];
    let walk = IndexWalk { alias: "e", equal: &equal, last: "number", after: Some("$1".to_owned()), descending: false };
    format!("{} {}", walk.condition(), walk.order())
}

fn bind_rows<'v>(query: Statement<'v>, filter: &'v EventFilter, page: &Page<i64>) -> Statement<'v> {
    let mut query = query.bind::<BigInt, _>(page.after.unwrap_or(0));
    if let Some(account) = &filter.account_id {
        query = query.bind::<Text, _>(account.as_str());
    }
    match filter.key_id {
        Some(key) => query.bind::<Text, _>(key.to_string()).bind::<SqlUuid, _>(key.as_uuid()),
        None => query,
    }
}

/// Restores the personal text that has not been erased, and compares it with what the events commit to.
async fn unseal(conn: &mut AsyncPgConnection, events: &mut [StoredEvent]) -> QueryResult<()> {
    let is_sealed = |event: &&StoredEvent| event.event.as_ref().is_some_and(Event::is_sealed);
    let numbers: Vec<_> = events.iter().filter(is_sealed).map(|event| event.number).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    for (number, details) in personal::read(conn, numbers).await? {
        let at = events.binary_search_by_key(&number, |event| event.number);
        let stored = &mut events[at.expect("it was asked for by the number of one of them")];
        let event = stored.event.as_mut().expect("a sealed event was read");
        stored.columns_match &= details.is_some_and(|details| event.unseal(details));
    }
    Ok(())
}

impl EventRow {
    fn into_stored(self) -> StoredEvent {
        let event = Event::decode(self.entry.format_version, &self.entry.payload);
        // Of a format that this build cannot read, it cannot say that a column differs.
        let columns_match = event.as_ref().is_none_or(|event| self.matches(event));
        let EntryRow { number, payload, hash, .. } = self.entry;
        StoredEvent { epoch: self.epoch, number, payload, hash: hash.0, event, columns_match }
    }

    fn matches(&self, event: &Event) -> bool {
        let affected = event.affected_key_ids.iter().map(|key| key.as_uuid());
        event.revision == revision(self.epoch, self.entry.number)
            && event.event_id.as_uuid() == self.event_id
            && event.time == self.time.0
            && event.kind == self.kind
            && event.account_id.as_ref().map(|id| id.as_str()) == self.account_id.as_deref()
            && event.target.kind == self.target_type
            && event.target.id == self.target_id
            && affected.eq(self.affected_key_ids.iter().copied())
    }
}
