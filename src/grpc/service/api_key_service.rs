//! ApiKeyService: the keys of an account.

use tonic::{Request, Response, Status, async_trait};

use super::context::{caller, changing_caller};
use crate::{
    app::{
        App, Session,
        types::{ApiKeyEdit, Changed, Guard, Minted, StateChange},
    },
    domain::{
        self,
        api_key::ApiKey,
        id::{AccountId, KeyId},
    },
    grpc::{
        convert::{
            Within, all,
            api_key::{draft, edit, filter, to_api_key},
            required,
            revision::{guard, propagation},
            time::grace,
        },
        request::{field_mask::Mask, page_token::page},
        status::Refusal,
    },
    proto::{
        self, CreateApiKeyRequest, CreateApiKeyResponse, DeleteApiKeyRequest, DeleteApiKeyResponse,
        DisableApiKeyRequest, DisableApiKeyResponse, EnableApiKeyRequest, EnableApiKeyResponse, GetApiKeyRequest,
        GetApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse, RotateApiKeyRequest, RotateApiKeyResponse,
        UpdateApiKeyRequest, UpdateApiKeyResponse, api_key_service_server::ApiKeyService,
    },
};

/// Implements ApiKeyService.
pub struct ApiKeys {
    /// The use-cases.
    pub app: App,
}

#[async_trait]
impl ApiKeyService for ApiKeys {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        check_no_request_id(&request.request_id)?;
        let (account, draft) = all((
            AccountId::parse("account_id", &request.account_id),
            required("api_key", request.api_key).and_then(|key| draft(key).within("api_key")),
        ))?;
        let minted = self.app.create_api_key(&caller, &account, draft, request.validate_only).await?;
        let (api_key, token, propagation) = to_minted(minted);
        Ok(Response::new(CreateApiKeyResponse { api_key, token, propagation }))
    }

    async fn get_api_key(&self, request: Request<GetApiKeyRequest>) -> Result<Response<GetApiKeyResponse>, Status> {
        let (caller, request) = caller(request)?;
        let (account, key) = named(&request.account_id, &request.key_id)?;
        let key = self.app.get_api_key(&caller, &account, key).await?;
        Ok(Response::new(GetApiKeyResponse { api_key: Some(to_api_key(key)) }))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let (caller, mut request) = caller(request)?;
        let (account, filter, (page, list)) =
            all((AccountId::parse("account_id", &request.account_id), filter(&request), page(&mut request)))?;
        let listed = self.app.list_api_keys(&caller, &account, &filter, page).await?;
        let (api_keys, next_page_token) = list.respond(listed, |key| key.key_id, to_api_key);
        Ok(Response::new(ListApiKeysResponse { api_keys, next_page_token }))
    }

    async fn update_api_key(
        &self,
        request: Request<UpdateApiKeyRequest>,
    ) -> Result<Response<UpdateApiKeyResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let validate_only = request.validate_only;
        let (account, (key, edit, guard)) = all((
            AccountId::parse("account_id", &request.account_id),
            required("api_key", request.api_key)
                .and_then(|key| edited(key, request.update_mask.as_ref(), validate_only)),
        ))?;
        let changed = self.app.update_api_key(&caller, &account, key, edit, guard).await?;
        let (api_key, propagation) = to_changed(changed);
        Ok(Response::new(UpdateApiKeyResponse { api_key, propagation }))
    }

    async fn rotate_api_key(
        &self,
        request: Request<RotateApiKeyRequest>,
    ) -> Result<Response<RotateApiKeyResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        check_no_request_id(&request.request_id)?;
        let ((account, key), grace) =
            all((named(&request.account_id, &request.key_id), grace("grace_period", request.grace_period)))?;
        let guard = guard(&request.etag, request.validate_only);
        let minted = self.app.rotate_api_key(&caller, &account, key, grace, guard).await?;
        let (api_key, token, propagation) = to_minted(minted);
        Ok(Response::new(RotateApiKeyResponse { api_key, token, propagation }))
    }

    async fn disable_api_key(
        &self,
        request: Request<DisableApiKeyRequest>,
    ) -> Result<Response<DisableApiKeyResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let named = named(&request.account_id, &request.key_id)?;
        let guard = guard(&request.etag, request.validate_only);
        let (api_key, propagation) = self.change_state(&caller, named, StateChange::Disable, guard).await?;
        Ok(Response::new(DisableApiKeyResponse { api_key, propagation }))
    }

    async fn enable_api_key(
        &self,
        request: Request<EnableApiKeyRequest>,
    ) -> Result<Response<EnableApiKeyResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let named = named(&request.account_id, &request.key_id)?;
        let guard = guard(&request.etag, request.validate_only);
        let (api_key, propagation) = self.change_state(&caller, named, StateChange::Enable, guard).await?;
        Ok(Response::new(EnableApiKeyResponse { api_key, propagation }))
    }

    async fn delete_api_key(
        &self,
        request: Request<DeleteApiKeyRequest>,
    ) -> Result<Response<DeleteApiKeyResponse>, Status> {
        let (caller, request) = changing_caller(request, |request| request.skip_propagation_wait)?;
        let named = named(&request.account_id, &request.key_id)?;
        let guard = guard(&request.etag, request.validate_only);
        let (api_key, propagation) = self.change_state(&caller, named, StateChange::Delete, guard).await?;
        Ok(Response::new(DeleteApiKeyResponse { api_key, propagation }))
    }
}

impl ApiKeys {
    async fn change_state(
        &self,
        caller: &Session,
        (account, key): (AccountId, KeyId),
        change: StateChange,
        guard: Guard,
    ) -> Result<(Option<proto::ApiKey>, Option<proto::Propagation>), Status> {
        Ok(to_changed(self.app.change_api_key_state(caller, &account, key, change, guard).await?))
    }
}

fn named(account_id: &str, key_id: &str) -> Result<(AccountId, KeyId), domain::Error> {
    all((AccountId::parse("account_id", account_id), KeyId::parse("key_id", key_id)))
}

/// Parses the key that an edit names, the edit, and its preconditions.
fn edited(
    key: proto::ApiKey,
    update_mask: Option<&prost_types::FieldMask>,
    validate_only: bool,
) -> Result<(KeyId, ApiKeyEdit, Guard), domain::Error> {
    let guard = guard(&key.etag, validate_only);
    let key_id = KeyId::parse("api_key.key_id", &key.key_id);
    let edit = Mask::of(update_mask, &key).and_then(|mask| edit(key, &mask).within("api_key"));
    let (key_id, edit) = all((key_id, edit))?;
    Ok((key_id, edit, guard))
}

/// Refuses a request id. Idempotent retries (I1) are not offered yet; to ignore the id would promise a safety that does
/// not exist.
fn check_no_request_id(request_id: &str) -> Result<(), Refusal> {
    if request_id.is_empty() { Ok(()) } else { Err(Refusal::field_not_offered("request_id")) }
}

fn to_changed(changed: Changed<ApiKey>) -> (Option<proto::ApiKey>, Option<proto::Propagation>) {
    (Some(to_api_key(changed.value)), propagation(changed.propagation))
}

/// Converts a minted key: the only place where a token leaves the server (K4).
fn to_minted(minted: Minted) -> (Option<proto::ApiKey>, String, Option<proto::Propagation>) {
    let token = minted.token.as_ref().map(|token| token.reveal().to_owned()).unwrap_or_default();
    (Some(to_api_key(minted.key)), token, propagation(minted.propagation))
}
