//! Reads what the role of `database_url` may do to the log beyond appending: "cannot change or delete events" is a
//! promise of the database, and only as good as the role that the server connects as (V6).

use diesel::{
    QueryResult, QueryableByName,
    sql_types::{Bool, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::store::sql::statement::statement;

/// The role itself, and every role that its session can become: by SET ROLE, by inheritance, by RESET ROLE. Before
/// PostgreSQL 16, a role that may create roles may make itself a member of any role except superusers.
const POWERS_SQL: &str = "WITH reach AS MATERIALIZED ( \
      SELECT m.oid, m.rolname, m.rolsuper, m.rolcreaterole FROM pg_roles m \
      WHERE pg_has_role(current_user, m.oid, 'MEMBER') OR pg_has_role(session_user, m.oid, 'MEMBER')), \
     log AS MATERIALIZED ( \
      SELECT c.oid, c.relowner, n.nspowner, d.datdba FROM pg_class c \
      JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_database d ON d.datname = current_database() \
      WHERE c.oid = 'events'::regclass) \
     SELECT current_user::text AS role, \
     EXISTS (SELECT FROM reach WHERE rolsuper) AS superuser, \
     EXISTS (SELECT FROM reach r, log l WHERE r.oid IN (l.relowner, l.nspowner, l.datdba)) AS owner, \
     EXISTS (SELECT FROM reach r, log l WHERE has_table_privilege(r.oid, l.oid, 'UPDATE, DELETE, TRUNCATE') \
      OR has_any_column_privilege(r.oid, l.oid, 'UPDATE')) AS changes, \
     EXISTS (SELECT FROM reach r, log l WHERE has_table_privilege(r.oid, l.oid, 'TRIGGER')) AS triggers, \
     EXISTS (SELECT FROM reach WHERE rolname IN ('pg_execute_server_program', 'pg_write_server_files') \
      OR rolcreaterole AND current_setting('server_version_num')::int < 160000) AS escalates";

/// Says what a role may do that voids the promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Powers {
    /// The role's name.
    pub role: String,
    /// Each in words, as in "role x …"; empty if the promise holds.
    pub excess: Vec<&'static str>,
}

#[derive(QueryableByName)]
struct PowersRow {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    superuser: bool,
    #[diesel(sql_type = Bool)]
    owner: bool,
    #[diesel(sql_type = Bool)]
    changes: bool,
    #[diesel(sql_type = Bool)]
    triggers: bool,
    #[diesel(sql_type = Bool)]
    escalates: bool,
}

/// Reads the privileges from the database's own catalog.
pub async fn read(conn: &mut AsyncPgConnection) -> QueryResult<Powers> {
    let row: PowersRow = statement(POWERS_SQL).get_result(conn).await?;
    // A superuser may do all of it: one reason says so.
    let reasons = [
        (row.superuser, "is or can become a superuser"),
        (row.owner && !row.superuser, "owns the table `events`, its schema or the database, or can become who does"),
        (row.changes && !row.superuser && !row.owner, "may UPDATE, DELETE or TRUNCATE `events`"),
        (row.triggers && !row.superuser && !row.owner, "may put triggers on `events`"),
        (row.escalates && !row.superuser, "can give itself more privileges"),
    ];
    let excess = reasons.into_iter().filter(|(applies, _)| *applies).map(|(_, reason)| reason).collect();
    Ok(Powers { role: row.role, excess })
}
