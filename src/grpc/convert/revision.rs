//! Converts revisions, etags and propagation.

use crate::{
    app::types::{Guard, Propagation},
    domain::{
        Error,
        log::revision::{Etag, Revision},
    },
    proto,
};

/// Parses an optional revision.
///
/// # Errors
/// [`Error::Invalid`] naming `field` if either part is negative, or if it has a number without an epoch: epochs start
/// at 1, and a number means nothing by itself.
pub fn revision(field: &str, value: Option<proto::Revision>) -> Result<Option<Revision>, Error> {
    match value {
        Some(proto::Revision { epoch, number }) if epoch < 0 || number < 0 => {
            Err(Error::field(field, "must not be negative"))
        }
        Some(proto::Revision { epoch: 0, number: 1.. }) => {
            Err(Error::field(field, "needs its epoch: give both parts as they were answered"))
        }
        Some(proto::Revision { epoch, number }) => Ok(Some(Revision { epoch, number })),
        None => Ok(None),
    }
}

/// Parses the preconditions of a mutation; an empty etag means none.
#[must_use]
pub fn guard(etag: &str, validate_only: bool) -> Guard {
    Guard { etag: Etag::from_request(etag), validate_only }
}

/// Converts a revision to its message.
#[must_use]
pub fn to_revision(revision: Revision) -> proto::Revision {
    proto::Revision { epoch: revision.epoch, number: revision.number }
}

/// Converts the propagation of a mutation to its message.
#[must_use]
pub fn propagation(propagation: Propagation) -> Option<proto::Propagation> {
    Some(proto::Propagation {
        complete: propagation.complete,
        revision: Some(to_revision(propagation.revision)),
        pending_replicas: i32::try_from(propagation.pending_replicas).unwrap_or(i32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_revision_is_refused_by_name() {
        for (epoch, number) in [(-1, 0), (0, -1)] {
            let error = revision("min_revision", Some(proto::Revision { epoch, number })).expect_err("negative");
            assert!(error.to_string().contains("min_revision"), "{error}");
        }
        let error = revision("min_revision", Some(proto::Revision { epoch: 0, number: 42 })).expect_err("no epoch");
        assert!(error.to_string().contains("min_revision") && error.to_string().contains("epoch"), "{error}");
        assert_eq!(revision("min_revision", None), Ok(None));
        let zero = Some(proto::Revision { epoch: 0, number: 0 });
        assert_eq!(revision("min_revision", zero), Ok(Some(Revision { epoch: 0, number: 0 })));
    }
}
