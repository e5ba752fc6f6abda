//! Ids: ours are TypeIDs over UUIDv7; accounts, teams, roles and users carry the product's own.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{error::Error, token::ParsedToken};

/// The reserved account of operators' and services' own keys (A3, A4).
pub const SYSTEM_ACCOUNT: &str = "system";

const EXTERNAL_ID_BYTES_MAX: usize = 64;
/// Crockford's base 32, lower case: the alphabet of TypeID.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const BASE32_CHARS: usize = 26;
/// Bytes of the text form of our ids: three letters, `_`, and 26 digits.
pub const TYPE_ID_BYTES: usize = 4 + BASE32_CHARS;

macro_rules! type_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Converts the UUIDv7 that is stored.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUIDv7 that is stored.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// Returns the text form, in ASCII.
            #[must_use]
            pub fn to_ascii(self) -> [u8; TYPE_ID_BYTES] {
                let mut text = [0; TYPE_ID_BYTES];
                text[..TYPE_ID_BYTES - BASE32_CHARS].copy_from_slice(concat!($prefix, "_").as_bytes());
                encode_base32(self.0, &mut text[TYPE_ID_BYTES - BASE32_CHARS..]);
                text
            }

            /// Parses the text form.
            ///
            /// # Errors
            /// [`Error::Invalid`] naming `field`.
            pub fn parse(field: &str, text: &str) -> Result<Self, Error> {
                text.strip_prefix(concat!($prefix, "_")).and_then(decode_base32).map(Self).ok_or_else(|| {
                    Error::field(field, concat!("must be `", $prefix, "_` and 26 characters, as Latchkey returned it"))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(str::from_utf8(&self.to_ascii()).expect("it is ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse("id", &text).map_err(serde::de::Error::custom)
            }
        }
    };
}

type_id!(
    /// An API key's id: `key_…`.
    KeyId,
    "key"
);
type_id!(
    /// An event's id: `evt_…`.
    EventId,
    "evt"
);

fn encode_base32(uuid: Uuid, text: &mut [u8]) {
    let mut rest = uuid.as_u128();
    for digit in text.iter_mut().rev() {
        *digit = BASE32[rest as usize & 31];
        rest >>= 5;
    }
}

fn decode_base32(text: &str) -> Option<Uuid> {
    // 26 characters hold 130 bits: the first must not overflow the 128 of a UUID.
    if text.len() != BASE32_CHARS || text.as_bytes()[0] > b'7' {
        return None;
    }
    let mut value: u128 = 0;
    for byte in text.bytes() {
        let digit = BASE32.iter().position(|&c| c == byte)?;
        value = value << 5 | digit as u128;
    }
    Some(Uuid::from_u128(value))
}

macro_rules! external_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id of the product.
            ///
            /// # Errors
            /// [`Error::Invalid`] naming `field`, unless it is 1-64 of `[A-Za-z0-9_.:-]`.
            pub fn parse(field: &str, text: &str) -> Result<Self, Error> {
                check_external_id(field, text)?;
                Ok(Self(text.into()))
            }

            /// Returns an id that the store holds; it was parsed before it was stored.
            #[must_use]
            pub fn from_stored(text: &str) -> Self {
                Self(text.into())
            }

            /// Returns the id's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

external_id!(
    /// An account's id.
    AccountId
);
external_id!(
    /// A team's id, unique in its account.
    TeamId
);
external_id!(
    /// A role's id, unique in its account.
    RoleId
);
external_id!(
    /// A user's id, unique in its account.
    UserId
);

impl AccountId {
    /// Returns the reserved account of operators' and services' own keys (A3).
    #[must_use]
    pub fn system() -> Self {
        Self(SYSTEM_ACCOUNT.into())
    }

    /// Reports whether it is the reserved account.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.as_str() == SYSTEM_ACCOUNT
    }
}

/// Reports whether a text is of the form of the ids of accounts, teams, roles and users.
#[must_use]
pub fn is_external_id(text: &str) -> bool {
    check_external_id("", text).is_ok()
}

fn check_external_id(field: &str, text: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if text.is_empty() {
        Err(Error::field(field, "is required: 1-64 characters of A-Z a-z 0-9 _ . : -"))
    } else if text.len() > EXTERNAL_ID_BYTES_MAX || !text.bytes().all(allowed) {
        Err(Error::field(field, "must be 1-64 characters of A-Z a-z 0-9 _ . : -"))
    } else if ParsedToken::parse(text.as_bytes()).is_some() {
        // Ids are stored, logged and named in errors; a token put in one's place by mistake must not be (K4).
        Err(Error::field(field, "is a token, not an id"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_a_token_is_no_id_and_is_not_echoed() {
        let prefix = crate::domain::token::Prefix::parse("prefix", "lk").expect("a prefix");
        let token = crate::domain::token::PlainToken::mint(&prefix, &zeroize::Zeroizing::new([7; 32]));
        let refused = TeamId::parse("team_id", token.reveal()).expect_err("a token");
        assert!(!refused.to_string().contains(&token.reveal()[3..]), "it is echoed");
        let almost = format!("{}0", &token.reveal()[..token.reveal().len() - 1]);
        assert_eq!(TeamId::parse("team_id", &almost).is_ok(), !token.reveal().ends_with('0'));
    }

    #[test]
    fn a_type_id_reads_back_as_written() {
        // The vector of the TypeID specification.
        let uuid = Uuid::from_u128(0x0188_bac7_4afa_78aa_bc3b_bd1e_ef28_d881);
        let text = KeyId::from_uuid(uuid).to_string();
        assert_eq!(text, "key_01h2xcejqtf2nbrexx3vqjhp41");
        assert_eq!(KeyId::parse("key_id", &text), Ok(KeyId::from_uuid(uuid)));
    }

    #[test]
    fn a_malformed_type_id_names_the_field() {
        for bad in [
            "",
            "key_",
            "evt_01h2xcejqtf2nbrexx3vqjhp41",
            "key_01h2xcejqtf2nbrexx3vqjhp4",
            "key_01h2xcejqtf2nbrexx3vqjhp4u",
            "key_81h2xcejqtf2nbrexx3vqjhp41",
            "key_01H2XCEJQTF2NBREXX3VQJHP41",
        ] {
            let error = KeyId::parse("key_id", bad).expect_err(bad);
            assert!(error.to_string().contains("key_id"), "{error}");
        }
    }

    #[test]
    fn an_external_id_is_1_to_64_of_its_alphabet() {
        assert!(AccountId::parse("account_id", &"a".repeat(64)).is_ok());
        assert!(AccountId::parse("account_id", "A-z_0.9:x").is_ok());
        for bad in ["", " ", "a b", "é", "a/b", "a\0", &"a".repeat(65)] {
            assert!(AccountId::parse("account_id", bad).is_err(), "{bad:?}");
        }
    }
}
