//! Mints tokens and ids.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    error::AppError,
    ports::{NewSecret, Tx},
};
use crate::{
    domain::{
        self,
        id::KeyId,
        time::Timestamp,
        token::{Pepper, PlainToken, Prefix},
    },
    entropy::Entropy,
};

const NO_COMMON_PEPPER: &str = "no pepper of this server is known to every replica, so no token can be minted: give all \
     servers the same setting `peppers`; a server that was killed counts until its lease has ended";

/// Mints tokens.
pub struct Minter {
    prefix: Prefix,
    peppers: Vec<Pepper>,
    entropy: Box<dyn Entropy>,
}

impl Minter {
    /// Mints tokens of a prefix, each under one of these peppers (T1, T2).
    #[must_use]
    pub fn new(prefix: Prefix, peppers: Vec<Pepper>, entropy: Box<dyn Entropy>) -> Self {
        Self { prefix, peppers, entropy }
    }

    /// Mints a token, and returns it with what is stored of it, under a pepper that every replica has: one that
    /// lacked it would answer UNKNOWN (V2).
    pub(super) async fn token(&self, tx: &mut dyn Tx) -> Result<(PlainToken, NewSecret), AppError> {
        let chosen = tx.minting_pepper().await?;
        let pepper = chosen.and_then(|id| self.peppers.iter().find(|pepper| pepper.id() == id));
        let pepper = pepper.ok_or_else(|| domain::Error::WrongState(NO_COMMON_PEPPER.to_owned()))?;
        let mut secret = Zeroizing::new([0; 32]);
        self.entropy.fill(secret.as_mut());
        let token = PlainToken::mint(&self.prefix, &secret);
        let digest = token.parsed().hash(pepper);
        Ok((token, NewSecret { digest, pepper_id: pepper.id().to_owned() }))
    }

    /// Returns a new key's id: a UUIDv7 at a moment of database time.
    pub(super) fn key_id(&self, now: Timestamp) -> KeyId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        KeyId::from_uuid(uuid_v7(now, &random))
    }
}

/// Returns a UUIDv7 of a moment. The store gives events such ids, too.
#[must_use]
pub fn uuid_v7(now: Timestamp, random: &[u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_micros() / 1_000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid()
}
