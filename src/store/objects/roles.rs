//! Roles of an account (A2, A5).

use diesel::{QueryResult, dsl::exists, prelude::*, upsert::excluded};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    app::ports::Page,
    domain::{
        directory::{Role, RoleKind, RolePermissions},
        id::{AccountId, RoleId},
    },
    store::sql::{
        schema::{roles, user_roles, users},
        values::{items, revision, unreadable},
    },
};

#[derive(Queryable, Insertable)]
#[diesel(table_name = roles)]
struct RoleRow {
    account_id: String,
    role_id: String,
    display_name: String,
    kind: String,
    permissions: Vec<String>,
    all_permissions: bool,
    revision_epoch: i64,
    revision_number: i64,
}

/// Reads a role.
pub async fn get(conn: &mut AsyncPgConnection, account: &AccountId, role: &RoleId) -> QueryResult<Option<Role>> {
    let row: Option<RoleRow> = roles::table.find((account.as_str(), role.as_str())).first(conn).await.optional()?;
    row.map(RoleRow::into_role).transpose()
}

/// Lists roles in order of id.
pub async fn list(conn: &mut AsyncPgConnection, account: &AccountId, page: &Page<RoleId>) -> QueryResult<Vec<Role>> {
    let mut query = roles::table
        .filter(roles::account_id.eq(account.as_str()))
        .order(roles::role_id)
        .limit(i64::from(page.limit))
        .into_boxed();
    if let Some(after) = &page.after {
        query = query.filter(roles::role_id.gt(after.as_str()));
    }
    let rows: Vec<RoleRow> = query.load(conn).await?;
    rows.into_iter().map(RoleRow::into_role).collect()
}

/// Reports whether a user has the role, as its base role or beside it.
pub async fn in_use(conn: &mut AsyncPgConnection, account: &AccountId, role: &RoleId) -> QueryResult<bool> {
    let (account, role) = (account.as_str(), role.as_str());
    let base = users::table.filter(users::account_id.eq(account)).filter(users::base_role_id.eq(role));
    let added = user_roles::table.filter(user_roles::account_id.eq(account)).filter(user_roles::role_id.eq(role));
    diesel::select(exists(base).or(exists(added))).get_result(conn).await
}

/// Creates or replaces roles. A role's kind is immutable (A5), so an update leaves it.
pub async fn put(conn: &mut AsyncPgConnection, account: &AccountId, roles: &[Role]) -> QueryResult<()> {
    let rows: Vec<_> = roles.iter().map(|role| RoleRow::new(account, role)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    diesel::insert_into(roles::table)
        .values(rows)
        .on_conflict((roles::account_id, roles::role_id))
        .do_update()
        .set((
            roles::display_name.eq(excluded(roles::display_name)),
            roles::permissions.eq(excluded(roles::permissions)),
            roles::all_permissions.eq(excluded(roles::all_permissions)),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes a role; a foreign key refuses it while a user has it.
pub async fn delete(conn: &mut AsyncPgConnection, account: &AccountId, role: &RoleId) -> QueryResult<()> {
    diesel::delete(roles::table.find((account.as_str(), role.as_str()))).execute(conn).await?;
    Ok(())
}

/// Converts the two columns of a role's permissions.
pub fn permissions(all_permissions: bool, names: Vec<String>) -> RolePermissions {
    if all_permissions { RolePermissions::Everything } else { RolePermissions::Named(names.into_iter().collect()) }
}

/// Returns the two columns of a role's permissions.
pub fn permission_columns(permissions: &RolePermissions) -> (bool, Vec<String>) {
    match permissions {
        RolePermissions::Everything => (true, Vec::new()),
        RolePermissions::Named(names) => (false, items(names)),
    }
}

impl RoleRow {
    fn new(account: &AccountId, role: &Role) -> Self {
        let (all_permissions, permissions) = permission_columns(&role.permissions);
        Self {
            account_id: account.to_string(),
            role_id: role.role_id.to_string(),
            display_name: role.display_name.clone(),
            kind: role.kind.as_str().to_owned(),
            permissions,
            all_permissions,
            revision_epoch: role.revision.epoch,
            revision_number: role.revision.number,
        }
    }

    fn into_role(self) -> QueryResult<Role> {
        Ok(Role {
            role_id: RoleId::from_stored(&self.role_id),
            display_name: self.display_name,
            kind: RoleKind::from_stored(&self.kind).ok_or_else(|| unreadable("roles.kind"))?,
            permissions: permissions(self.all_permissions, self.permissions),
            revision: revision(self.revision_epoch, self.revision_number),
        })
    }
}
