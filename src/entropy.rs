//! Randomness, at the edge, so that a test owns it: tokens, ids, salts and passwords come from here.

use uuid::{Builder, Uuid};
use zeroize::Zeroizing;

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    /// Fills a buffer with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// The operating system's.
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system's random source does not fail once it is seeded");
    }
}

/// Returns a random UUID (version 4).
pub(crate) fn random_uuid() -> Uuid {
    let mut random = [0; 16];
    OsEntropy.fill(&mut random);
    Builder::from_random_bytes(random).into_uuid()
}

/// Returns 256 random bits as 64 hexadecimal digits: a password or a secret for a file.
pub(crate) fn random_hex() -> Zeroizing<String> {
    let mut secret = Zeroizing::new([0; 32]);
    OsEntropy.fill(secret.as_mut());
    Zeroizing::new(secret.iter().map(|byte| format!("{byte:02x}")).collect())
}
