//! Reads and writes the catalogue of permissions (P1) and the roles that a new account starts with.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwapOption;
use diesel::{
    QueryResult,
    prelude::*,
    sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Text},
    upsert::excluded,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::roles::{self, permission_columns};
use crate::{
    domain::{
        directory::{Role, RoleKind},
        log::revision::Revision,
        permissions::{
            catalogue::{Catalogue, Permission, PermissionSpec},
            permission::Bit,
        },
    },
    store::sql::{
        rows::NameRow,
        schema::{default_roles, permissions},
        statement::statement,
        values::{items, revision, unreadable},
    },
};

/// The revision of the catalogue, and the epoch of the log, in one snapshot.
pub const HEAD_SQL: &str = "SELECT h.epoch AS log_epoch, c.revision_epoch, c.revision_number \
     FROM (SELECT * FROM log_head LIMIT 1) h CROSS JOIN (SELECT * FROM catalogue_head LIMIT 1) c";

/// The catalogue and its revision, in one snapshot. Reads all permissions: there are at most 256 (P1).
pub const LOAD_SQL: &str = "SELECT h.epoch AS log_epoch, c.revision_epoch, c.revision_number, \
     p.name, p.bit, p.description, p.team_scopable, p.implies, p.retired \
     FROM (SELECT * FROM log_head LIMIT 1) h CROSS JOIN (SELECT * FROM catalogue_head LIMIT 1) c LEFT JOIN permissions p ON true";

/// Which of some names the team scopes of the newest keys, or the first team roles, have: what many hold is met at
/// once.
const HELD_BY_SOME_SQL: &str = "SELECT p.name FROM ( \
      SELECT k.state, k.team_permissions FROM api_keys k ORDER BY k.key_id DESC LIMIT 1000) k \
     CROSS JOIN LATERAL unnest(k.team_permissions) AS p (name) WHERE k.state <> 'deleted' AND p.name = ANY($1) \
     UNION SELECT p.name FROM ( \
      SELECT r.kind, r.permissions FROM roles r ORDER BY r.account_id, r.role_id LIMIT 1000) r \
     CROSS JOIN LATERAL unnest(r.permissions) AS p (name) WHERE r.kind = 'team' AND p.name = ANY($1)";

/// Whether the team scope of a key that is not deleted, or a team role, names `$1`: by inverted indexes, since a name
/// that is held nowhere is met by no reading, however long.
const HELD_ON_TEAMS_SQL: &str = "SELECT EXISTS (SELECT FROM api_keys k WHERE k.team_permissions @> ARRAY[$1] \
     AND k.team_permissions <> '{}' AND k.state <> 'deleted') \
     OR EXISTS (SELECT FROM roles r WHERE r.kind = 'team' AND r.permissions @> ARRAY[$1]) AS held";

/// Inverted indexes give bitmaps, which no other statement of a session may have.
const BY_INVERTED_INDEXES_SQL: &str =
    "SET LOCAL enable_bitmapscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off";
const BY_OTHER_INDEXES_SQL: &str =
    "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on";

/// Identifies a catalogue by its revision, in an epoch of the log. The epoch because history that was lost and
/// accepted as lost may have had another catalogue under the same revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct CatalogueHead {
    #[diesel(sql_type = BigInt)]
    log_epoch: i64,
    #[diesel(sql_type = BigInt)]
    revision_epoch: i64,
    #[diesel(sql_type = BigInt)]
    revision_number: i64,
}

/// Caches the last catalogue read, so that a fill need not read it again.
#[derive(Default)]
pub struct CatalogueCache(ArcSwapOption<(CatalogueHead, Arc<Catalogue>)>);

#[derive(QueryableByName)]
struct PermissionRow {
    #[diesel(embed)]
    head: CatalogueHead,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    bit: Option<i16>,
    #[diesel(sql_type = Nullable<Text>)]
    description: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    team_scopable: Option<bool>,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    implies: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<Bool>)]
    retired: Option<bool>,
}

#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = Bool)]
    held: bool,
}

// === impl CatalogueHead ===

impl CatalogueHead {
    /// Identifies the catalogue of that revision, read in a snapshot of the log at `log_epoch`.
    pub fn new(log_epoch: i64, revision: Revision) -> Self {
        Self { log_epoch, revision_epoch: revision.epoch, revision_number: revision.number }
    }

    fn revision(self) -> Revision {
        revision(self.revision_epoch, self.revision_number)
    }
}

// === impl CatalogueCache ===

impl CatalogueCache {
    /// Returns the catalogue of that head, if it is the last one read.
    pub fn get(&self, head: CatalogueHead) -> Option<Arc<Catalogue>> {
        self.0.load_full().filter(|cached| cached.0 == head).map(|cached| cached.1.clone())
    }

    /// Returns the catalogue of the connection's snapshot.
    pub async fn current(&self, mut conn: &AsyncPgConnection) -> QueryResult<Arc<Catalogue>> {
        let head: CatalogueHead = statement(HEAD_SQL).get_result(&mut conn).await?;
        match self.get(head) {
            Some(catalogue) => Ok(catalogue),
            None => self.load(conn).await.map(|(_, catalogue)| catalogue),
        }
    }

    /// Reads the catalogue and keeps it.
    pub async fn load(&self, conn: &AsyncPgConnection) -> QueryResult<(CatalogueHead, Arc<Catalogue>)> {
        let loaded = load(conn).await?;
        self.0.store(Some(Arc::new(loaded.clone())));
        Ok(loaded)
    }
}

/// Reads the catalogue, past any cache: for the transaction that is changing it.
pub async fn load(mut conn: &AsyncPgConnection) -> QueryResult<(CatalogueHead, Arc<Catalogue>)> {
    let rows: Vec<PermissionRow> = statement(LOAD_SQL).load(&mut conn).await?;
    let [PermissionRow { head, .. }, ..] = rows[..] else { return Err(unreadable("catalogue_head")) };
    let permissions = rows.into_iter().filter_map(|row| permission(row).transpose()).collect::<QueryResult<_>>()?;
    Ok((head, Arc::new(Catalogue::new(head.revision(), permissions))))
}

fn permission(row: PermissionRow) -> QueryResult<Option<Permission>> {
    let PermissionRow {
        name: Some(name),
        bit: Some(bit),
        description: Some(description),
        team_scopable: Some(team_scopable),
        implies: Some(implies),
        retired: Some(retired),
        ..
    } = row
    else {
        return Ok(None);
    };
    let bit = u16::try_from(bit).ok().and_then(Bit::catalogue).ok_or_else(|| unreadable("permissions.bit"))?;
    Ok(Some(Permission { spec: PermissionSpec { name, description, team_scopable, implies, retired }, bit }))
}

/// Returns those of some names that are held on teams.
pub async fn held_on_teams(conn: &mut AsyncPgConnection, names: &BTreeSet<String>) -> QueryResult<BTreeSet<String>> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let some: Vec<NameRow> = statement(HELD_BY_SOME_SQL).bind::<Array<Text>, _>(items(names)).load(conn).await?;
    let mut held: BTreeSet<_> = some.into_iter().map(|row| row.name).collect();
    conn.batch_execute(BY_INVERTED_INDEXES_SQL).await?;
    for name in names {
        if !held.contains(name) {
            let row: HeldRow = statement(HELD_ON_TEAMS_SQL).bind::<Text, _>(name).get_result(conn).await?;
            if row.held {
                held.insert(name.clone());
            }
        }
    }
    conn.batch_execute(BY_OTHER_INDEXES_SQL).await?;
    Ok(held)
}

#[derive(Queryable)]
struct DefaultRoleRow {
    role_id: String,
    display_name: String,
    kind: String,
    permissions: Vec<String>,
    all_permissions: bool,
}

/// Lists the roles that a new account starts with, in order of id.
pub async fn default_roles(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Role>> {
    let rows: Vec<DefaultRoleRow> = default_roles::table.order(default_roles::role_id).load(conn).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Role {
                role_id: crate::domain::id::RoleId::from_stored(&row.role_id),
                display_name: row.display_name,
                kind: RoleKind::from_stored(&row.kind).ok_or_else(|| unreadable("default_roles.kind"))?,
                permissions: roles::permissions(row.all_permissions, row.permissions),
                revision: revision(0, 0),
            })
        })
        .collect()
}

/// Replaces the catalogue and the default roles. A permission's bit never changes and no permission
/// is deleted (P1), so this only inserts and updates.
pub async fn put(conn: &mut AsyncPgConnection, next: &[Permission], default_roles: &[Role]) -> QueryResult<()> {
    let rows: Vec<_> = next
        .iter()
        .map(|permission| {
            let bit = i16::try_from(permission.bit.index()).expect("a catalogue bit is below 256");
            (
                permissions::name.eq(&permission.spec.name),
                permissions::bit.eq(bit),
                permissions::description.eq(&permission.spec.description),
                permissions::team_scopable.eq(permission.spec.team_scopable),
                permissions::implies.eq(&permission.spec.implies),
                permissions::retired.eq(permission.spec.retired),
            )
        })
        .collect();
    if !rows.is_empty() {
        diesel::insert_into(permissions::table)
            .values(rows)
            .on_conflict(permissions::name)
            .do_update()
            .set((
                permissions::description.eq(excluded(permissions::description)),
                permissions::team_scopable.eq(excluded(permissions::team_scopable)),
                permissions::implies.eq(excluded(permissions::implies)),
                permissions::retired.eq(excluded(permissions::retired)),
            ))
            .execute(conn)
            .await?;
    }
    put_default_roles(conn, default_roles).await
}

async fn put_default_roles(conn: &mut AsyncPgConnection, roles: &[Role]) -> QueryResult<()> {
    let rows: Vec<_> = roles
        .iter()
        .map(|role| {
            let (all_permissions, names) = permission_columns(&role.permissions);
            (
                default_roles::role_id.eq(role.role_id.as_str()),
                default_roles::display_name.eq(&role.display_name),
                default_roles::kind.eq(role.kind.as_str()),
                default_roles::permissions.eq(names),
                default_roles::all_permissions.eq(all_permissions),
            )
        })
        .collect();
    diesel::delete(default_roles::table).execute(conn).await?;
    if !rows.is_empty() {
        diesel::insert_into(default_roles::table).values(rows).execute(conn).await?;
    }
    Ok(())
}
