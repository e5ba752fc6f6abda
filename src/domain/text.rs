//! Names, comments and metadata (K3).

use std::collections::BTreeMap;

use super::error::Error;

const NAME_CHARS_MAX: usize = 200;
const COMMENT_CHARS_MAX: usize = 5_000;
const METADATA_PAIRS_MAX: usize = 50;
const METADATA_BYTES_MAX: usize = 16 * 1024;

/// Checks a key's name: 1-200 characters, not all white space, no control characters.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn check_name(field: &str, name: &str) -> Result<(), Error> {
    if name.chars().all(char::is_whitespace) {
        return Err(Error::field(field, "is required: 1-200 characters, not all white space"));
    }
    check_display_name(field, name)
}

/// Checks a display name, which may be empty: at most 200 characters, no control characters.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn check_display_name(field: &str, name: &str) -> Result<(), Error> {
    let chars = name.chars().count();
    if chars > NAME_CHARS_MAX {
        return Err(Error::field(field, format!("must be at most 200 characters (got {chars})")));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::field(field, "must not contain control characters"));
    }
    Ok(())
}

/// Checks a comment: at most 5,000 characters; newlines and tabs are its only control characters.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn check_comment(field: &str, comment: &str) -> Result<(), Error> {
    let chars = comment.chars().count();
    if chars > COMMENT_CHARS_MAX {
        return Err(Error::field(field, format!("must be at most 5,000 characters (got {chars})")));
    }
    if comment.chars().any(|c| c == '\0') {
        return Err(Error::field(field, "must not contain NUL"));
    }
    if comment.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Error::field(field, "must not contain control characters other than newline and tab"));
    }
    Ok(())
}

/// Checks metadata: up to 50 pairs, 16 KiB in all, non-empty names, no NUL.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn check_metadata(field: &str, metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    let pairs = metadata.len();
    if pairs > METADATA_PAIRS_MAX {
        return Err(Error::field(field, format!("must have at most 50 pairs (got {pairs})")));
    }
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(Error::field(field, format!("must be at most 16,384 bytes in all (got {bytes})")));
    }
    if metadata.keys().any(String::is_empty) {
        return Err(Error::field(field, "must not have an empty name"));
    }
    if metadata.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return Err(Error::field(field, "must not contain NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k3_a_name_is_1_to_200_characters_not_bytes() {
        assert!(check_name("name", &"é".repeat(200)).is_ok());
        for bad in ["", "  ", "\u{3000}", "a\nb", "a\0b", "a\u{7f}", "a\u{85}", &"é".repeat(201)] {
            assert!(check_name("name", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn k3_a_comment_may_have_newlines_but_no_nul() {
        assert!(check_comment("comment", "").is_ok());
        assert!(check_comment("comment", "a\nb\r\n\tc").is_ok());
        assert!(check_comment("comment", &"é".repeat(5_000)).is_ok());
        for bad in ["a\0", "\u{1b}[31m", &"a".repeat(5_001)] {
            assert!(check_comment("comment", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn k3_metadata_is_bounded() {
        let pairs = |n: usize| (0..n).map(|i| (i.to_string(), String::new())).collect::<BTreeMap<_, _>>();
        let sized = |n: usize| BTreeMap::from([("k".to_owned(), "v".repeat(n))]);
        assert!(check_metadata("metadata", &pairs(50)).is_ok());
        assert!(check_metadata("metadata", &pairs(51)).is_err());
        assert!(check_metadata("metadata", &sized(16 * 1024 - 1)).is_ok());
        assert!(check_metadata("metadata", &sized(16 * 1024)).is_err());
        assert!(check_metadata("metadata", &BTreeMap::from([(String::new(), "v".into())])).is_err());
        assert!(check_metadata("metadata", &BTreeMap::from([("k".into(), "\0".into())])).is_err());
    }
}
