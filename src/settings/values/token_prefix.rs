//! The prefix of newly minted tokens.

use std::collections::HashMap;

use crate::settings::setting::{Parse, Setting};

/// Holds the prefix of newly minted tokens (T1): 2–12 characters of `[a-z0-9]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPrefix(String);

// === impl TokenPrefix ===

impl TokenPrefix {
    /// Returns the prefix, without the underscore that follows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Parse for TokenPrefix {
    fn parse(text: &str, _: &Setting, _: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let right_length = (2..=12).contains(&text.len());
        if right_length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        Err(vec![format!("must be 2 to 12 characters of a-z and 0-9 (got {text:?})")])
    }

    fn shown(&self) -> String {
        self.0.clone()
    }
}
