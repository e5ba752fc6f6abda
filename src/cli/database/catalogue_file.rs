//! The TOML file of `latchkey catalogue apply` (P1).

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{
    app::types::CatalogueSpec,
    domain::{
        Error,
        directory::{Role, RoleKind, RolePermissions},
        error::Violated,
        id::RoleId,
        log::revision::Revision,
        permissions::{catalogue::PermissionSpec, grants},
        text,
    },
};

/// The example catalogue that `latchkey dev` starts with.
pub(crate) const EXAMPLE: &str = include_str!("../../../deploy/catalogue.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    permissions: Vec<PermissionEntry>,
    #[serde(default)]
    default_roles: Vec<RoleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PermissionEntry {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    team_scopable: bool,
    #[serde(default)]
    implies: Vec<String>,
    #[serde(default)]
    retired: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    role_id: String,
    #[serde(default)]
    display_name: String,
    kind: String,
    #[serde(default)]
    permissions: Vec<String>,
    #[serde(default)]
    all_permissions: bool,
}

/// Says why a file is not a catalogue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueFileError {
    /// Not TOML, or an unknown or missing key; says where.
    #[error("not a catalogue: {0}")]
    Toml(#[from] toml::de::Error),
    /// Values of the wrong shape.
    #[error("{0}")]
    Values(#[from] Error),
}

/// Reads a catalogue file. Names are looked up when it is applied.
///
/// # Errors
/// [`CatalogueFileError`], naming every wrong value.
pub(crate) fn parse(text: &str) -> Result<CatalogueSpec, CatalogueFileError> {
    let file: CatalogueFile = toml::from_str(text)?;
    let permissions = file.permissions.into_iter().map(|entry| PermissionSpec {
        name: entry.name,
        description: entry.description,
        team_scopable: entry.team_scopable,
        implies: entry.implies,
        retired: entry.retired,
    });
    let mut problems = Violated::default();
    let mut default_roles = Vec::new();
    for (i, entry) in file.default_roles.into_iter().enumerate() {
        default_roles.extend(problems.collect(role(&format!("default_roles[{i}]"), &entry))?);
    }
    problems.finish()?;
    Ok(CatalogueSpec { permissions: permissions.collect(), default_roles })
}

fn role(field: &str, entry: &RoleEntry) -> Result<Role, Error> {
    let role_id = RoleId::parse(&format!("{field}.role_id"), &entry.role_id)?;
    text::check_display_name(&format!("{field}.display_name"), &entry.display_name)?;
    let kind = RoleKind::from_stored(&entry.kind)
        .ok_or_else(|| Error::field(format!("{field}.kind"), "must be base, custom or team"))?;
    let names: BTreeSet<String> = grants::parse_names(&format!("{field}.permissions"), &entry.permissions)?;
    let permissions = match (entry.all_permissions, names.is_empty()) {
        (false, _) => RolePermissions::Named(names),
        (true, true) => RolePermissions::Everything,
        (true, false) => {
            return Err(Error::field(format!("{field}.permissions"), "must be omitted if all_permissions is set"));
        }
    };
    let display_name = entry.display_name.clone();
    Ok(Role { role_id, display_name, kind, permissions, revision: Revision { epoch: 0, number: 0 } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::permissions::catalogue::{Catalogue, Usage, plan};

    struct Unused;
    impl Usage for Unused {
        fn held_on_teams(&self, _: &str) -> bool {
            false
        }
    }

    #[test]
    fn the_example_is_a_catalogue() {
        let spec = parse(EXAMPLE).expect("parses");
        let empty = Catalogue::new(Revision { epoch: 1, number: 0 }, vec![]);
        let planned = plan(&empty, spec.permissions, &Unused).expect("is accepted");
        assert_eq!(planned.len(), 27);
        let catalogue = Catalogue::new(Revision { epoch: 1, number: 1 }, planned);
        for role in &spec.default_roles {
            role.check_permissions("role", None, &catalogue).expect("a good role");
        }
        assert_eq!(spec.default_roles.len(), 5);
    }

    #[test]
    fn a_wrong_key_is_named() {
        let error = parse("[[permissions]]\nname = \"a\"\nteam_scoped = true\n").map(|_| ()).expect_err("refused");
        assert!(error.to_string().contains("team_scoped"), "{error}");
    }
}
