//! Parses update masks (AIP-134): which fields of a key an edit replaces.
//!
//! It knows the names of fields, not what may be in them.

use std::collections::BTreeSet;

use crate::{
    domain::{Error, error::Violated},
    proto::{ApiKey, api_key::Expiry},
};

/// A field that a mask may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiKeyPath {
    /// `name`.
    Name,
    /// `comment`.
    Comment,
    /// `metadata`, as a whole.
    Metadata,
    /// `account_permissions`.
    AccountPermissions,
    /// `team_scope`, as a whole.
    TeamScope,
    /// `team_scope.team_ids`.
    TeamIds,
    /// `team_scope.permissions`.
    TeamPermissions,
    /// `expire_time`.
    ExpireTime,
    /// `ttl`.
    Ttl,
}

impl ApiKeyPath {
    const ALL: [(&'static str, Self); 9] = [
        ("name", Self::Name),
        ("comment", Self::Comment),
        ("metadata", Self::Metadata),
        ("account_permissions", Self::AccountPermissions),
        ("team_scope", Self::TeamScope),
        ("team_scope.team_ids", Self::TeamIds),
        ("team_scope.permissions", Self::TeamPermissions),
        ("expire_time", Self::ExpireTime),
        ("ttl", Self::Ttl),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, path)| path)
    }

    fn populated(self, key: &ApiKey) -> bool {
        match self {
            Self::Name => !key.name.is_empty(),
            Self::Comment => !key.comment.is_empty(),
            Self::Metadata => !key.metadata.is_empty(),
            Self::AccountPermissions => !key.account_permissions.is_empty(),
            // A submessage that is present counts as populated, whatever it contains: `team_scope` as a whole.
            Self::TeamScope => key.team_scope.is_some(),
            Self::TeamIds | Self::TeamPermissions => false,
            Self::ExpireTime => matches!(key.expiry, Some(Expiry::ExpireTime(_))),
            Self::Ttl => matches!(key.expiry, Some(Expiry::Ttl(_))),
        }
    }
}

/// The fields that an edit replaces.
#[derive(Debug, PartialEq, Eq)]
pub struct Mask(BTreeSet<ApiKeyPath>);

impl Mask {
    /// Parses the mask of an edit to `key`. An absent or empty mask means every populated field; `*` means all.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `update_mask.paths[i]` for an unknown path, and for one that names one form of the
    /// expiry while the key carries the other: the caller cannot want to clear what it has just set.
    pub fn of(mask: Option<&prost_types::FieldMask>, key: &ApiKey) -> Result<Self, Error> {
        let paths = mask.map_or(&[][..], |mask| &mask.paths);
        if paths.is_empty() {
            return Ok(Self(ApiKeyPath::ALL.into_iter().map(|(_, path)| path).filter(|p| p.populated(key)).collect()));
        }
        let mut problems = Violated::default();
        let mut set = BTreeSet::new();
        for (i, name) in paths.iter().enumerate() {
            match (name.as_str(), ApiKeyPath::named(name)) {
                ("*", _) => set.extend(ApiKeyPath::ALL.map(|(_, path)| path)),
                (_, Some(path)) => _ = set.insert(path),
                (_, None) => problems.add(format!("update_mask.paths[{i}]"), format!("must be one of {}", known())),
            }
        }
        for (one, other, description) in [
            (ApiKeyPath::ExpireTime, ApiKeyPath::Ttl, "names expire_time, but api_key.ttl is set: name ttl"),
            (ApiKeyPath::Ttl, ApiKeyPath::ExpireTime, "names ttl, but api_key.expire_time is set: name expire_time"),
        ] {
            if set.contains(&one) && !set.contains(&other) && other.populated(key) {
                let i = paths.iter().position(|name| ApiKeyPath::named(name) == Some(one)).unwrap_or_default();
                problems.add(format!("update_mask.paths[{i}]"), description);
            }
        }
        problems.finish()?;
        Ok(Self(set))
    }

    /// Reports whether the edit replaces the field.
    #[must_use]
    pub fn has(&self, path: ApiKeyPath) -> bool {
        self.0.contains(&path)
    }
}

fn known() -> String {
    let names: Vec<_> = ApiKeyPath::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("{}, or `*`", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::types::{Expiry as NewExpiry, TeamScopeEdit},
        grpc::convert::api_key::edit,
        proto::TeamScope,
    };

    fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
        Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
    }

    fn of(paths: &[&str], key: &ApiKey) -> Result<Vec<ApiKeyPath>, Error> {
        Mask::of(mask(paths).as_ref(), key).map(|mask| mask.0.into_iter().collect())
    }

    fn expiring() -> ApiKey {
        let moment = prost_types::Timestamp { seconds: 5, nanos: 0 };
        ApiKey { name: "n".into(), expiry: Some(Expiry::ExpireTime(moment)), ..ApiKey::default() }
    }

    #[test]
    fn an_absent_or_empty_mask_means_every_populated_field() {
        let key = ApiKey { team_scope: Some(TeamScope::default()), state: 1, etag: "e".into(), ..expiring() };
        let expected = [ApiKeyPath::Name, ApiKeyPath::TeamScope, ApiKeyPath::ExpireTime];
        assert_eq!(of(&[], &key), Ok(expected.to_vec()));
        assert_eq!(Mask::of(None, &key), Ok(Mask(expected.into())));
        assert_eq!(of(&[], &ApiKey::default()), Ok(vec![]));
    }

    #[test]
    fn a_star_means_all() {
        assert_eq!(of(&["*"], &ApiKey::default()).map(|all| all.len()), Ok(ApiKeyPath::ALL.len()));
    }

    #[test]
    fn an_unknown_path_is_named_and_the_known_ones_are_listed() {
        for bad in ["", "state", "etag", "key_id", "metadata.x", "Name", "team_scope.", "api_key.name", "expiry"] {
            let error = of(&["name", bad], &ApiKey::default()).expect_err(bad).to_string();
            assert!(error.contains("update_mask.paths[1]"), "{error}");
            assert!(ApiKeyPath::ALL.iter().all(|(name, _)| error.contains(name)), "{error}");
        }
    }

    #[test]
    fn a_mask_that_would_clear_the_expiry_just_set_is_refused() {
        let error = of(&["name", "ttl"], &expiring()).expect_err("conflict").to_string();
        assert!(error.contains("update_mask.paths[1]"), "{error}");
        let span = prost_types::Duration { seconds: 5, nanos: 0 };
        let key = ApiKey { expiry: Some(Expiry::Ttl(span)), ..ApiKey::default() };
        assert!(of(&["expire_time"], &key).is_err());
        assert!(of(&["expire_time", "ttl"], &key).is_ok());
        assert!(of(&["*"], &key).is_ok());
    }

    #[test]
    fn a_named_field_that_is_not_populated_is_cleared() {
        let key = ApiKey { name: "kept out".into(), ..ApiKey::default() };
        let named = ["comment", "metadata", "account_permissions", "team_scope", "expire_time"];
        let mask = Mask::of(mask(&named).as_ref(), &key).expect("good");
        let edit = edit(key, &mask).expect("good");
        assert_eq!(edit.name, None);
        assert_eq!(edit.comment.as_deref(), Some(""));
        assert_eq!(edit.metadata, Some([].into()));
        assert_eq!(edit.account_permissions, Some([].into()));
        assert!(matches!(edit.team_scope, Some(TeamScopeEdit::Whole(None))));
        assert_eq!(edit.expiry, Some(NewExpiry::Never));
    }

    #[test]
    fn one_list_of_the_team_scope_can_be_replaced_alone() {
        let scope = TeamScope { team_ids: vec!["t".into()], permissions: vec!["BAD".into()] };
        let key = ApiKey { team_scope: Some(scope), ..ApiKey::default() };
        let teams = Mask::of(mask(&["team_scope.team_ids"]).as_ref(), &key).expect("good");
        let parts = edit(key.clone(), &teams).expect("the list that is not named is not looked at").team_scope;
        assert!(matches!(parts, Some(TeamScopeEdit::Parts { team_ids: Some(_), permissions: None })));
        let whole = Mask::of(mask(&["team_scope.team_ids", "team_scope"]).as_ref(), &key).expect("good");
        let error = edit(key, &whole).expect_err("the whole is looked at").to_string();
        assert!(error.contains("team_scope.permissions[0]"), "{error}");
    }
}
