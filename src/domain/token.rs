//! Tokens (T1, T2): plaintext, parsed and hashed are three types, and only the hashed one is storable. What is
//! presented may be hashed before it is parsed to its end ([`FormedToken`]), as long as it is parsed before it is
//! answered.
//!
//! `<prefix>_<43 base62><6 base62>`: 256 random bits and the CRC-32 of all that stands before it. The
//! vectors in `tests/token_vectors.json` pin the format.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::Error;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits that 256 bits need in base 62.
const SECRET_CHARS: usize = 43;
/// Digits that 32 bits need in base 62.
const CHECKSUM_CHARS: usize = 6;
const PREFIX_BYTES_MIN: usize = 2;
const PREFIX_BYTES_MAX: usize = 12;
const HINT_CHARS: usize = 4;
/// The longest token: one compression of BLAKE3 takes 64 bytes.
pub const TOKEN_BYTES_MAX: usize = PREFIX_BYTES_MAX + 1 + SECRET_CHARS + CHECKSUM_CHARS;

const _: () = assert!(TOKEN_BYTES_MAX <= 64, "T1: a token is one BLAKE3 compression");

/// A prefix for new tokens: 2-12 of `[a-z0-9]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Parses a configured prefix.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Error> {
        if prefix_ok(text.as_bytes()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::field(field, format!("must be 2 to 12 characters of a-z and 0-9 (got {text:?})")))
        }
    }

    /// Returns the prefix, without the underscore that follows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn prefix_ok(prefix: &[u8]) -> bool {
    (PREFIX_BYTES_MIN..=PREFIX_BYTES_MAX).contains(&prefix.len())
        && prefix.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// A token in clear. It exists to be shown once, to the caller that minted it (K4).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PlainToken(String);

impl PlainToken {
    /// Makes a token from 32 random bytes.
    #[must_use]
    pub fn mint(prefix: &Prefix, secret: &Zeroizing<[u8; 32]>) -> Self {
        // Reserved in full: growing would leave copies of the secret behind.
        let mut text = String::with_capacity(TOKEN_BYTES_MAX);
        text.push_str(&prefix.0);
        text.push('_');
        push_base62(&mut text, secret);
        let checksum = crc32fast::hash(text.as_bytes());
        push_base62_u32(&mut text, checksum);
        Self(text)
    }

    /// Returns the text, to put into the response that minted it and nowhere else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns what a stored key shows of it (K4): the prefix and the last four characters.
    #[must_use]
    pub fn hint(&self) -> String {
        let prefix = self.0.split('_').next().unwrap_or_default();
        format!("{prefix}_…{}", &self.0[self.0.len() - HINT_CHARS..])
    }

    /// Returns the token as parsed, to hash it.
    #[must_use]
    pub fn parsed(&self) -> ParsedToken<'_> {
        ParsedToken(self.0.as_bytes())
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(redacted)")
    }
}

/// A presented text of a token's form, whose checksum has not been checked yet.
#[derive(Clone, Copy)]
pub struct FormedToken<'a>(&'a [u8]);

/// A presented token, well-formed and with the right checksum. Not yet known to exist.
#[derive(Clone, Copy)]
pub struct ParsedToken<'a>(&'a [u8]);

impl<'a> FormedToken<'a> {
    /// Checks everything but the checksum; `None` means MALFORMED. Any valid prefix will do (T1).
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let prefix_len = bytes.len().checked_sub(1 + SECRET_CHARS + CHECKSUM_CHARS)?;
        if !prefix_ok(&bytes[..prefix_len.min(PREFIX_BYTES_MAX + 1)]) || bytes[prefix_len] != b'_' {
            return None;
        }
        // No early exit, so that the compiler can compare many characters at once.
        let rest = &bytes[prefix_len + 1..];
        rest.iter().fold(true, |good, byte| good & byte.is_ascii_alphanumeric()).then_some(Self(bytes))
    }

    /// Checks the checksum too; `None` means MALFORMED.
    #[inline]
    #[must_use]
    pub fn checked(self) -> Option<ParsedToken<'a>> {
        let (body, checksum) = self.0.split_at(self.0.len() - CHECKSUM_CHARS);
        (decode_base62_u32(checksum)? == crc32fast::hash(body)).then_some(ParsedToken(self.0))
    }

    /// Returns the digest that it has if it is a token, so that its entry can be prefetched while the checksum is
    /// computed. What is found there must not be answered before the checksum was checked ([`Self::checked`]).
    #[inline]
    #[must_use]
    pub fn hash(&self, pepper: &Pepper) -> HashedToken {
        hash(self.0, pepper)
    }
}

impl<'a> ParsedToken<'a> {
    /// Parses what was presented; `None` means MALFORMED. Any valid prefix parses (T1).
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        FormedToken::parse(bytes)?.checked()
    }

    /// Returns the digest under a pepper (T2).
    #[must_use]
    pub fn hash(&self, pepper: &Pepper) -> HashedToken {
        hash(self.0, pepper)
    }
}

#[inline]
fn hash(token: &[u8], pepper: &Pepper) -> HashedToken {
    HashedToken(*blake3::keyed_hash(&pepper.secret, token).as_bytes())
}

impl fmt::Debug for FormedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormedToken(redacted)")
    }
}

impl fmt::Debug for ParsedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParsedToken(redacted)")
    }
}

/// What is stored of a token: its digest under a pepper. Compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct HashedToken([u8; 32]);

impl HashedToken {
    /// Returns a digest from the bytes that the store holds.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the digest's bytes, for the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for HashedToken {
    fn eq(&self, other: &Self) -> bool {
        // BLAKE3's own comparison is in constant time.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl std::hash::Hash for HashedToken {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Digests are uniform: eight of their bytes are as good a hash as any.
        state.write_u64(u64::from_le_bytes(std::array::from_fn(|i| self.0[i])));
    }
}

impl fmt::Debug for HashedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedToken(redacted)")
    }
}

/// A secret that keys the digests; lives in memory only (T2).
#[derive(Clone, ZeroizeOnDrop)]
pub struct Pepper {
    #[zeroize(skip)]
    id: String,
    secret: [u8; 32],
}

impl Pepper {
    /// Creates a pepper under its id.
    #[must_use]
    pub fn new(id: String, secret: &Zeroizing<[u8; 32]>) -> Self {
        Self { id, secret: **secret }
    }

    /// Returns the id that secrets in the store carry.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a value that tells whether two holders of this id have the same secret, and nothing else.
    #[must_use]
    pub fn check_value(&self) -> [u8; 32] {
        *blake3::keyed_hash(&self.secret, b"latchkey pepper check value v1").as_bytes()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({}, redacted)", self.id)
    }
}

/// Appends 256 bits as 43 base 62 digits, most significant first.
fn push_base62(out: &mut String, secret: &Zeroizing<[u8; 32]>) {
    let mut number = Zeroizing::new(**secret);
    let mut digits = Zeroizing::new([0u8; SECRET_CHARS]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the remainder is below 62, so the quotient fits a byte");
            remainder = value % 62;
        }
        *digit = BASE62[remainder as usize];
    }
    digits.iter().for_each(|&digit| out.push(char::from(digit)));
}

fn push_base62_u32(out: &mut String, value: u32) {
    let digit = |i: u32| BASE62[(value / 62u32.pow(i) % 62) as usize];
    (0..CHECKSUM_CHARS as u32).rev().for_each(|i| out.push(char::from(digit(i))));
}

/// Decodes a number; `None` if it is more than 32 bits, or no digit.
fn decode_base62_u32(digits: &[u8]) -> Option<u32> {
    // Without a branch: what digits come next is random, and the processor would guess wrong.
    let value = digits.iter().fold(0, |value, &digit| value * 62 + DIGIT_VALUES[usize::from(digit)]);
    u32::try_from(value).ok()
}

/// Of each byte; what is no digit makes any number too large.
const DIGIT_VALUES: [u64; 256] = {
    let mut values = [1 << 32; 256];
    let mut value = 0;
    while value < BASE62.len() {
        values[BASE62[value] as usize] = value as u64;
        value += 1;
    }
    values
};

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
