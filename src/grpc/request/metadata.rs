//! Parses credentials and deadlines in a call's metadata. It knows their syntax; whether credentials are valid is for
//! the use-cases to decide.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::{
    app::types::OnBehalfOf,
    domain::id::{AccountId, UserId},
    grpc::status::Refusal,
};

const AUTHORIZATION: &str = "authorization";
const ON_BEHALF_OF: &str = "latchkey-on-behalf-of";
const GRPC_TIMEOUT: &str = "grpc-timeout";
const BEARER: &[u8] = b"bearer";
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Whether an RPC may be called on behalf of a user (A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBehalf {
    /// It may.
    Allowed,
    /// The header is refused: ignoring it would act with more authority than the caller meant.
    Refused,
}

/// The credentials of a call. Has no `Debug`: it holds a token.
pub struct Credentials<'a> {
    /// The token, which follows `Bearer `.
    pub bearer: &'a [u8],
    /// The user acted for.
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// Parses the credentials.
///
/// # Errors
/// UNAUTHENTICATED without `authorization: Bearer <token>`; INVALID_ARGUMENT for a repeated entry, and for a user that
/// is malformed or not allowed on this RPC (A6).
pub fn credentials(metadata: &HeaderMap, on_behalf: OnBehalf) -> Result<Credentials<'_>, Refusal> {
    let authorization = single(metadata, AUTHORIZATION)?.ok_or_else(Refusal::no_credentials)?;
    let bearer = bearer(authorization.as_bytes()).ok_or_else(Refusal::no_credentials)?;
    let on_behalf_of = match (single(metadata, ON_BEHALF_OF)?, on_behalf) {
        (None, _) => None,
        (Some(_), OnBehalf::Refused) => return Err(on_behalf_not_allowed()),
        (Some(user), OnBehalf::Allowed) => Some(parse_on_behalf_of(user)?),
    };
    Ok(Credentials { bearer, on_behalf_of })
}

/// Parses `grpc-timeout`: one to eight digits and a unit.
///
/// # Errors
/// INVALID_ARGUMENT for one that is malformed or repeated: the caller does not mean to go on without a deadline.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = single(headers, GRPC_TIMEOUT)? else { return Ok(None) };
    let malformed = || {
        Refusal::metadata(
            GRPC_TIMEOUT,
            "must be one to eight digits and one of the units H, M, S, m, u and n, such as `500m`",
        )
    };
    parse_timeout(value.as_bytes()).map(Some).ok_or_else(malformed)
}

fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=TIMEOUT_DIGITS_MAX).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0_u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 60 * 60),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Refuses a user where none can be acted for (A6).
#[must_use]
pub fn on_behalf_not_allowed() -> Refusal {
    Refusal::metadata(
        ON_BEHALF_OF,
        "is not allowed here: only key management, GetIdentity and an account's own events accept it",
    )
}

fn single<'a>(metadata: &'a HeaderMap, entry: &'static str) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = metadata.get_all(entry).iter();
    let first = values.next();
    let joined = first.is_some_and(|value| value.as_bytes().contains(&b','));
    // A proxy may have joined repeated headers. No valid value contains a comma.
    if joined || values.next().is_some() {
        return Err(Refusal::metadata(entry, "must not be repeated"));
    }
    Ok(first)
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(BEARER.len())?;
    let token = rest.trim_ascii_start();
    let separated = token.len() < rest.len();
    (scheme.eq_ignore_ascii_case(BEARER) && separated && !token.is_empty()).then_some(token)
}

fn parse_on_behalf_of(value: &HeaderValue) -> Result<OnBehalfOf, Refusal> {
    let parsed = value.to_str().ok().and_then(|text| {
        let (account, user) = text.split_once("/users/")?;
        let account_id = AccountId::parse(ON_BEHALF_OF, account).ok()?;
        let user_id = UserId::parse(ON_BEHALF_OF, user).ok()?;
        Some(OnBehalfOf { account_id, user_id })
    });
    parsed.ok_or_else(|| Refusal::metadata(ON_BEHALF_OF, "must be `<account_id>/users/<user_id>`"))
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::StatusExt;

    use super::*;

    fn map(entries: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = http::HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, http::HeaderValue::from_bytes(value).expect("a header value"));
        }
        headers
    }

    fn refused(entries: &[(&'static str, &[u8])], on_behalf: OnBehalf) -> Status {
        let Err(refusal) = credentials(&map(entries), on_behalf) else { panic!("accepted {entries:?}") };
        refusal.into()
    }

    fn entry(status: &Status) -> Option<String> {
        status.get_details_error_info().and_then(|info| info.metadata.get("entry").cloned())
    }

    #[test]
    fn the_scheme_is_case_insensitive_and_the_rest_is_the_token() {
        for value in ["Bearer a b", "bearer a b", "BEARER   a b"] {
            let map = map(&[(AUTHORIZATION, value.as_bytes())]);
            let Ok(credentials) = credentials(&map, OnBehalf::Refused) else { panic!("refused {value:?}") };
            assert_eq!(credentials.bearer, b"a b");
            assert_eq!(credentials.on_behalf_of, None);
        }
    }

    #[test]
    fn anything_but_a_bearer_token_is_unauthenticated() {
        let none: &[(&'static str, &[u8])] = &[];
        assert_eq!(refused(none, OnBehalf::Allowed).code(), Code::Unauthenticated);
        for value in ["", "Bearer", "Bearer ", "Bearer    ", "Basic abc", "Bearerabc", "Bear er abc", "abc"] {
            let status = refused(&[(AUTHORIZATION, value.as_bytes())], OnBehalf::Allowed);
            assert_eq!(status.code(), Code::Unauthenticated, "{value:?}");
            let reason = status.get_details_error_info().map(|info| info.reason);
            assert_eq!(reason.as_deref(), Some("BAD_CREDENTIALS"), "{value:?}");
        }
    }

    #[test]
    fn a6_a_repeated_entry_is_refused_by_name() {
        let status = refused(&[(AUTHORIZATION, b"Bearer a"), (AUTHORIZATION, b"Bearer a")], OnBehalf::Allowed);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(entry(&status).as_deref(), Some(AUTHORIZATION));
        let user: (&'static str, &[u8]) = (ON_BEHALF_OF, b"acme/users/u");
        let status = refused(&[(AUTHORIZATION, b"Bearer a"), user, user], OnBehalf::Allowed);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(entry(&status).as_deref(), Some(ON_BEHALF_OF));
    }

    #[test]
    fn a6_a_user_is_an_account_and_an_id() {
        let map = map(&[(AUTHORIZATION, b"Bearer a"), (ON_BEHALF_OF, b"acme/users/u.1")]);
        let user = credentials(&map, OnBehalf::Allowed).ok().and_then(|found| found.on_behalf_of).expect("good");
        assert_eq!((user.account_id.as_str(), user.user_id.as_str()), ("acme", "u.1"));
        for bad in
            ["", "acme", "acme/users/", "/users/u", "acme/users/u/", "acme/user/u", "a/b/users/u", "acme/users/\u{e9}"]
        {
            let status = refused(&[(AUTHORIZATION, b"Bearer a"), (ON_BEHALF_OF, bad.as_bytes())], OnBehalf::Allowed);
            assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
            assert_eq!(entry(&status).as_deref(), Some(ON_BEHALF_OF), "{bad:?}");
        }
    }

    #[test]
    fn a6_a_user_is_refused_where_none_can_be_acted_for() {
        let status = refused(&[(AUTHORIZATION, b"Bearer a"), (ON_BEHALF_OF, b"acme/users/u")], OnBehalf::Refused);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(entry(&status).as_deref(), Some(ON_BEHALF_OF));
    }

    #[test]
    fn a_missing_token_comes_before_everything_else() {
        let status = refused(&[(ON_BEHALF_OF, b"nonsense")], OnBehalf::Allowed);
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}
