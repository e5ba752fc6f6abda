//! A5 and DirectoryService: accounts, teams, roles and users as the product has them.

mod accounts;
mod large;
mod objects;
mod reading;

use latchkey::proto::{
    Account, BatchUpsertTeamsRequest, BatchUpsertUsersRequest, DeleteAccountRequest, DeleteRoleRequest,
    DeleteTeamRequest, DeleteUserRequest, GetAccountRequest, GetRoleRequest, GetTeamRequest, GetUserRequest, Role,
    RoleKind, Team, TeamRole, UpsertAccountRequest, UpsertRoleRequest, UpsertTeamRequest, UpsertUserRequest, User,
    UserState,
};
use tonic::Status;

use crate::{
    calls::*,
    support::{Caller, World, world::*},
};

async fn put_account(caller: &Caller, account: Account) -> Result<Account, Status> {
    let request = UpsertAccountRequest { account: Some(account), validate_only: false, ..Default::default() };
    Ok(caller.directory().upsert_account(request).await?.into_inner().account.expect("an account"))
}

async fn put_team(caller: &Caller, team: Team) -> Result<Team, Status> {
    let request =
        UpsertTeamRequest { account_id: ACME.into(), team: Some(team), validate_only: false, ..Default::default() };
    Ok(caller.directory().upsert_team(request).await?.into_inner().team.expect("a team"))
}

async fn put_teams(caller: &Caller, teams: Vec<Team>) -> Result<Vec<Team>, Status> {
    let request = BatchUpsertTeamsRequest { account_id: ACME.into(), teams, ..Default::default() };
    Ok(caller.directory().batch_upsert_teams(request).await?.into_inner().teams)
}

async fn put_role(caller: &Caller, role: Role) -> Result<Role, Status> {
    let request =
        UpsertRoleRequest { account_id: ACME.into(), role: Some(role), validate_only: false, ..Default::default() };
    Ok(caller.directory().upsert_role(request).await?.into_inner().role.expect("a role"))
}

async fn put_user(caller: &Caller, user: User) -> Result<User, Status> {
    let request =
        UpsertUserRequest { account_id: ACME.into(), user: Some(user), validate_only: false, ..Default::default() };
    Ok(caller.directory().upsert_user(request).await?.into_inner().user.expect("a user"))
}

async fn put_users(caller: &Caller, users: Vec<User>) -> Result<Vec<User>, Status> {
    let request = BatchUpsertUsersRequest { account_id: ACME.into(), users, ..Default::default() };
    Ok(caller.directory().batch_upsert_users(request).await?.into_inner().users)
}

async fn get_account(caller: &Caller, account: &str) -> Result<Account, Status> {
    let request = GetAccountRequest { account_id: account.into() };
    Ok(caller.directory().get_account(request).await?.into_inner().account.expect("an account"))
}

async fn get_team(caller: &Caller, team: &str) -> Result<Team, Status> {
    let request = GetTeamRequest { account_id: ACME.into(), team_id: team.into() };
    Ok(caller.directory().get_team(request).await?.into_inner().team.expect("a team"))
}

async fn get_role(caller: &Caller, role: &str) -> Result<Role, Status> {
    let request = GetRoleRequest { account_id: ACME.into(), role_id: role.into() };
    Ok(caller.directory().get_role(request).await?.into_inner().role.expect("a role"))
}

async fn get_user(caller: &Caller, user: &str) -> Result<User, Status> {
    let request = GetUserRequest { account_id: ACME.into(), user_id: user.into() };
    Ok(caller.directory().get_user(request).await?.into_inner().user.expect("a user"))
}

async fn delete_account(caller: &Caller, account: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteAccountRequest { account_id: account.into(), etag: etag.into(), ..Default::default() };
    caller.directory().delete_account(request).await.map(drop)
}

async fn delete_team(caller: &Caller, team: &str, etag: &str) -> Result<(), Status> {
    let request =
        DeleteTeamRequest { account_id: ACME.into(), team_id: team.into(), etag: etag.into(), ..Default::default() };
    caller.directory().delete_team(request).await.map(drop)
}

async fn delete_role(caller: &Caller, role: &str, etag: &str) -> Result<(), Status> {
    let request =
        DeleteRoleRequest { account_id: ACME.into(), role_id: role.into(), etag: etag.into(), ..Default::default() };
    caller.directory().delete_role(request).await.map(drop)
}

async fn delete_user(caller: &Caller, user: &str, etag: &str) -> Result<(), Status> {
    let request =
        DeleteUserRequest { account_id: ACME.into(), user_id: user.into(), etag: etag.into(), ..Default::default() };
    caller.directory().delete_user(request).await.map(drop)
}

fn account(id: &str, name: &str) -> Account {
    Account { account_id: id.into(), display_name: name.into(), ..Default::default() }
}

fn team(id: &str, name: &str) -> Team {
    Team { team_id: id.into(), display_name: name.into(), ..Default::default() }
}

fn role(id: &str, kind: RoleKind, permissions: &[&str]) -> Role {
    Role { role_id: id.into(), kind: kind.into(), permissions: strings(permissions), ..Default::default() }
}

fn user(id: &str, base: &str) -> User {
    let state = UserState::Active.into();
    User { user_id: id.into(), state, base_role_id: base.into(), ..Default::default() }
}

fn on_team(team: &str, role: &str) -> TeamRole {
    TeamRole { team_id: team.into(), role_id: role.into() }
}
