//! DirectoryService: accounts, teams, roles, users and the catalogue.

use tonic::{Request, Response, Status, async_trait};

use super::context::{caller, changing_caller};
use crate::{
    app::{App, error::AppError, types::Guard},
    domain::id::{AccountId, RoleId, TeamId, UserId},
    grpc::{
        convert::{
            Within, all,
            catalogue::{catalogue, to_catalogue},
            directory::{account, role, team, teams, to_account, to_role, to_team, to_user, user, users},
            required,
            revision::{guard, propagation},
        },
        request::page_token::page,
    },
    proto::{
        ApplyCatalogueRequest, ApplyCatalogueResponse, BatchUpsertTeamsRequest, BatchUpsertTeamsResponse,
        BatchUpsertUsersRequest, BatchUpsertUsersResponse, DeleteAccountRequest, DeleteAccountResponse,
        DeleteRoleRequest, DeleteRoleResponse, DeleteTeamRequest, DeleteTeamResponse, DeleteUserRequest,
        DeleteUserResponse, GetAccountRequest, GetAccountResponse, GetCatalogueRequest, GetCatalogueResponse,
        GetRoleRequest, GetRoleResponse, GetTeamRequest, GetTeamResponse, GetUserRequest, GetUserResponse,
        ListAccountsRequest, ListAccountsResponse, ListRolesRequest, ListRolesResponse, ListTeamsRequest,
        ListTeamsResponse, ListUsersRequest, ListUsersResponse, ResumeAccountRequest, ResumeAccountResponse,
        SuspendAccountRequest, SuspendAccountResponse, UpsertAccountRequest, UpsertAccountResponse, UpsertRoleRequest,
        UpsertRoleResponse, UpsertTeamRequest, UpsertTeamResponse, UpsertUserRequest, UpsertUserResponse,
        directory_service_server::DirectoryService,
    },
};

/// Implements DirectoryService.
pub struct Directory {
    /// The use-cases.
    pub app: App,
}

#[async_trait]
impl DirectoryService for Directory {
    async fn upsert_account(
        &self,
        request: Request<UpsertAccountRequest>,
    ) -> Result<Response<UpsertAccountResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let message = required("account", request.account)?;
        let guard = guard(&message.etag, request.validate_only);
        let (account, display_name) = account(message).within("account")?;
        let changed = self.app.upsert_account(&caller, &account, display_name, guard).await?;
        let (account, propagation) = (Some(to_account(changed.value)), propagation(changed.propagation));
        Ok(Response::new(UpsertAccountResponse { account, propagation }))
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<GetAccountResponse>, Status> {
        let (caller, request) = caller(request)?;
        let account = AccountId::parse("account_id", &request.account_id)?;
        let account = self.app.get_account(&caller, &account).await?;
        Ok(Response::new(GetAccountResponse { account: Some(to_account(account)) }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let (caller, mut request) = caller(request)?;
        let (page, list) = page(&mut request)?;
        let listed = self.app.list_accounts(&caller, page).await?;
        let (accounts, next_page_token) = list.respond(listed, |account| account.account_id.clone(), to_account);
        Ok(Response::new(ListAccountsResponse { accounts, next_page_token }))
    }

    async fn delete_account(
        &self,
        request: Request<DeleteAccountRequest>,
    ) -> Result<Response<DeleteAccountResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let account = AccountId::parse("account_id", &request.account_id)?;
        let done = self.app.delete_account(&caller, &account, guard(&request.etag, false)).await?;
        Ok(Response::new(DeleteAccountResponse { propagation: propagation(done) }))
    }

    async fn upsert_team(&self, request: Request<UpsertTeamRequest>) -> Result<Response<UpsertTeamResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, team) = all((
            AccountId::parse("account_id", &request.account_id),
            required("team", request.team).and_then(|message| team(message).within("team")),
        ))?;
        let changed = self.app.upsert_teams(&caller, &account, vec![team], request.validate_only).await?;
        let (team, propagation) = (Some(to_team(only(changed.value)?)), propagation(changed.propagation));
        Ok(Response::new(UpsertTeamResponse { team, propagation }))
    }

    async fn get_team(&self, request: Request<GetTeamRequest>) -> Result<Response<GetTeamResponse>, Status> {
        let (caller, request) = caller(request)?;
        let (account, team) =
            all((AccountId::parse("account_id", &request.account_id), TeamId::parse("team_id", &request.team_id)))?;
        let team = self.app.get_team(&caller, &account, &team).await?;
        Ok(Response::new(GetTeamResponse { team: Some(to_team(team)) }))
    }

    async fn list_teams(&self, request: Request<ListTeamsRequest>) -> Result<Response<ListTeamsResponse>, Status> {
        let (caller, mut request) = caller(request)?;
        let (account, (page, list)) = all((AccountId::parse("account_id", &request.account_id), page(&mut request)))?;
        let listed = self.app.list_teams(&caller, &account, page).await?;
        let (teams, next_page_token) = list.respond(listed, |team| team.team_id.clone(), to_team);
        Ok(Response::new(ListTeamsResponse { teams, next_page_token }))
    }

    async fn delete_team(&self, request: Request<DeleteTeamRequest>) -> Result<Response<DeleteTeamResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, team) =
            all((AccountId::parse("account_id", &request.account_id), TeamId::parse("team_id", &request.team_id)))?;
        let guard = guard(&request.etag, false);
        let done = self.app.delete_team(&caller, &account, &team, guard).await?;
        Ok(Response::new(DeleteTeamResponse { propagation: propagation(done) }))
    }

    async fn upsert_role(&self, request: Request<UpsertRoleRequest>) -> Result<Response<UpsertRoleResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let validate_only = request.validate_only;
        let (account, (role, etag)) = all((
            AccountId::parse("account_id", &request.account_id),
            required("role", request.role).and_then(|message| role(message).within("role")),
        ))?;
        let guard = Guard { etag, validate_only };
        let changed = self.app.upsert_role(&caller, &account, role, guard).await?;
        let (role, propagation) = (Some(to_role(changed.value)), propagation(changed.propagation));
        Ok(Response::new(UpsertRoleResponse { role, propagation }))
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Result<Response<GetRoleResponse>, Status> {
        let (caller, request) = caller(request)?;
        let (account, role) =
            all((AccountId::parse("account_id", &request.account_id), RoleId::parse("role_id", &request.role_id)))?;
        let role = self.app.get_role(&caller, &account, &role).await?;
        Ok(Response::new(GetRoleResponse { role: Some(to_role(role)) }))
    }

    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        let (caller, mut request) = caller(request)?;
        let (account, (page, list)) = all((AccountId::parse("account_id", &request.account_id), page(&mut request)))?;
        let listed = self.app.list_roles(&caller, &account, page).await?;
        let (roles, next_page_token) = list.respond(listed, |role| role.role_id.clone(), to_role);
        Ok(Response::new(ListRolesResponse { roles, next_page_token }))
    }

    async fn delete_role(&self, request: Request<DeleteRoleRequest>) -> Result<Response<DeleteRoleResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, role) =
            all((AccountId::parse("account_id", &request.account_id), RoleId::parse("role_id", &request.role_id)))?;
        let guard = guard(&request.etag, false);
        let done = self.app.delete_role(&caller, &account, &role, guard).await?;
        Ok(Response::new(DeleteRoleResponse { propagation: propagation(done) }))
    }

    async fn upsert_user(&self, request: Request<UpsertUserRequest>) -> Result<Response<UpsertUserResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, user) = all((
            AccountId::parse("account_id", &request.account_id),
            required("user", request.user).and_then(|message| user(message).within("user")),
        ))?;
        let changed = self.app.upsert_users(&caller, &account, vec![user], request.validate_only, "user").await?;
        let (user, propagation) = (Some(to_user(only(changed.value)?)), propagation(changed.propagation));
        Ok(Response::new(UpsertUserResponse { user, propagation }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let (caller, request) = caller(request)?;
        let (account, user) =
            all((AccountId::parse("account_id", &request.account_id), UserId::parse("user_id", &request.user_id)))?;
        let user = self.app.get_user(&caller, &account, &user).await?;
        Ok(Response::new(GetUserResponse { user: Some(to_user(user)) }))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let (caller, mut request) = caller(request)?;
        let (account, (page, list)) = all((AccountId::parse("account_id", &request.account_id), page(&mut request)))?;
        let listed = self.app.list_users(&caller, &account, page).await?;
        let (users, next_page_token) = list.respond(listed, |user| user.user_id.clone(), to_user);
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, user) =
            all((AccountId::parse("account_id", &request.account_id), UserId::parse("user_id", &request.user_id)))?;
        let guard = guard(&request.etag, false);
        let done = self.app.delete_user(&caller, &account, &user, guard).await?;
        Ok(Response::new(DeleteUserResponse { propagation: propagation(done) }))
    }

    async fn batch_upsert_teams(
        &self,
        request: Request<BatchUpsertTeamsRequest>,
    ) -> Result<Response<BatchUpsertTeamsResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, teams) = all((AccountId::parse("account_id", &request.account_id), teams(request.teams)))?;
        let changed = self.app.upsert_teams(&caller, &account, teams, false).await?;
        let teams = changed.value.into_iter().map(to_team).collect();
        Ok(Response::new(BatchUpsertTeamsResponse { teams, propagation: propagation(changed.propagation) }))
    }

    async fn batch_upsert_users(
        &self,
        request: Request<BatchUpsertUsersRequest>,
    ) -> Result<Response<BatchUpsertUsersResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let (account, users) = all((AccountId::parse("account_id", &request.account_id), users(request.users)))?;
        let changed = self.app.upsert_users(&caller, &account, users, false, "users").await?;
        let users = changed.value.into_iter().map(to_user).collect();
        Ok(Response::new(BatchUpsertUsersResponse { users, propagation: propagation(changed.propagation) }))
    }

    async fn suspend_account(
        &self,
        request: Request<SuspendAccountRequest>,
    ) -> Result<Response<SuspendAccountResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let account = AccountId::parse("account_id", &request.account_id)?;
        let changed = self.app.suspend_account(&caller, &account, true).await?;
        let (account, propagation) = (Some(to_account(changed.value)), propagation(changed.propagation));
        Ok(Response::new(SuspendAccountResponse { account, propagation }))
    }

    async fn resume_account(
        &self,
        request: Request<ResumeAccountRequest>,
    ) -> Result<Response<ResumeAccountResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let account = AccountId::parse("account_id", &request.account_id)?;
        let changed = self.app.suspend_account(&caller, &account, false).await?;
        let (account, propagation) = (Some(to_account(changed.value)), propagation(changed.propagation));
        Ok(Response::new(ResumeAccountResponse { account, propagation }))
    }

    async fn get_catalogue(
        &self,
        request: Request<GetCatalogueRequest>,
    ) -> Result<Response<GetCatalogueResponse>, Status> {
        let (caller, GetCatalogueRequest {}) = caller(request)?;
        let view = self.app.get_catalogue(&caller).await?;
        Ok(Response::new(GetCatalogueResponse { catalogue: Some(to_catalogue(view)) }))
    }

    async fn apply_catalogue(
        &self,
        request: Request<ApplyCatalogueRequest>,
    ) -> Result<Response<ApplyCatalogueResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let message = required("catalogue", request.catalogue)?;
        let guard = guard(&message.etag, request.validate_only);
        let changed = self.app.apply_catalogue(&caller, catalogue(message)?, guard).await?;
        let (catalogue, propagation) = (Some(to_catalogue(changed.value)), propagation(changed.propagation));
        Ok(Response::new(ApplyCatalogueResponse { catalogue, propagation }))
    }
}

/// Returns the one item of a batch of one.
fn only<T>(items: Vec<T>) -> Result<T, AppError> {
    items.into_iter().next().ok_or(AppError::Internal("a batch of one came back empty"))
}
