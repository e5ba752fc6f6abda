//! Converts the catalogue of permissions (P1) and the roles that new accounts start with.

use super::{
    Within, all,
    directory::{default_roles, to_role},
    each,
};
use crate::{
    app::types::{CatalogueSpec, CatalogueView},
    domain::{
        Error,
        permissions::{
            catalogue::{Permission, PermissionSpec},
            permission::{self, CATALOGUE_BITS},
        },
    },
    proto,
};

/// Parses a catalogue to apply, checking the shape of its names. The domain decides whether it fits the current one
/// ([`crate::domain::permissions::catalogue::plan`]).
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field below `catalogue`.
pub fn catalogue(catalogue: proto::Catalogue) -> Result<CatalogueSpec, Error> {
    let (permissions, default_roles) =
        all((permissions(catalogue.permissions), default_roles(catalogue.default_roles))).within("catalogue")?;
    Ok(CatalogueSpec { permissions, default_roles })
}

fn permissions(items: Vec<proto::Permission>) -> Result<Vec<PermissionSpec>, Error> {
    if items.len() > usize::from(CATALOGUE_BITS) {
        return Err(Error::field("permissions", "must have at most 256 permissions, retired ones included"));
    }
    each("permissions", items, |item| {
        permission::check_name("name", &item.name)?;
        Ok(PermissionSpec {
            name: item.name,
            description: item.description,
            team_scopable: item.team_scopable,
            implies: item.implies,
            retired: item.retired,
        })
    })
}

/// Converts the catalogue to its message.
#[must_use]
pub fn to_catalogue(view: CatalogueView) -> proto::Catalogue {
    proto::Catalogue {
        permissions: view.catalogue.permissions().iter().map(to_permission).collect(),
        default_roles: view.default_roles.into_iter().map(to_role).collect(),
        etag: view.catalogue.revision().etag().to_string(),
    }
}

fn to_permission(permission: &Permission) -> proto::Permission {
    let spec = &permission.spec;
    proto::Permission {
        name: spec.name.clone(),
        description: spec.description.clone(),
        team_scopable: spec.team_scopable,
        implies: spec.implies.clone(),
        retired: spec.retired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_names_are_named_by_their_place() {
        let permission = |name: &str| proto::Permission { name: name.into(), ..proto::Permission::default() };
        let bad = proto::Catalogue {
            permissions: vec![permission("a.b"), permission("A")],
            default_roles: vec![proto::Role::default()],
            etag: String::new(),
        };
        let error = catalogue(bad).expect_err("bad").to_string();
        for field in ["catalogue.permissions[1].name", "catalogue.default_roles[0].role_id"] {
            assert!(error.contains(field), "{error}");
        }
    }
}
