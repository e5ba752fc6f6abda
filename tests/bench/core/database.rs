//! A database in memory, with as many keys as are asked for: what is measured is what the replica does with them.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use latchkey::{
    domain::{
        api_key::ApiKeyState,
        id::{AccountId, KeyId, TeamId},
        log::{event::GENESIS, revision::Revision},
        permissions::{
            catalogue::Catalogue,
            permission::{Bit, PermissionSet},
        },
        time::Timestamp,
        token::{HashedToken, Pepper, PlainToken, Prefix},
        verification::TokenFacts,
    },
    verify::primary::{Acknowledged, Acknowledgement, Fill, Head, LogEntry, Primary, Registration, Sent, Unavailable},
};
use uuid::Uuid;

/// A permission that every key holds at account level.
pub const PERMISSION: u16 = 3;
/// The n-th key is of account n modulo this.
pub const ACCOUNTS: usize = 1_000;
const HEAD: Revision = Revision { epoch: 1, number: 0 };

pub struct Keys {
    tokens: Vec<PlainToken>,
    digests: Vec<HashedToken>,
    by_digest: HashMap<HashedToken, u32>,
    catalogue: Arc<Catalogue>,
}

fn mint(number: u64) -> PlainToken {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    for (part, bytes) in secret.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(part as u32 * 16).to_le_bytes());
    }
    PlainToken::mint(&Prefix::parse("token_prefix", "lk").expect("a prefix"), &secret)
}

/// A token that no server minted.
pub fn invented() -> String {
    mint(u64::MAX).reveal().to_owned()
}

impl Keys {
    pub fn new(count: usize, pepper: &Pepper) -> Self {
        let tokens: Vec<_> = (0..count as u64).map(mint).collect();
        let digests: Vec<_> = tokens.iter().map(|token| token.parsed().hash(pepper)).collect();
        let by_digest = digests.iter().copied().zip(0..).collect();
        Self { tokens, digests, by_digest, catalogue: Arc::new(Catalogue::new(HEAD, vec![])) }
    }

    pub fn token(&self, place: usize) -> &[u8] {
        self.tokens[place].reveal().as_bytes()
    }

    pub fn digest(&self, place: usize) -> [u8; 32] {
        *self.digests[place].as_bytes()
    }

    pub fn account(place: usize) -> String {
        format!("a{}", place % ACCOUNTS)
    }

    /// Eight permissions and two teams, as one in a hundred others has them.
    fn facts(&self, place: usize) -> TokenFacts {
        let mut permissions = PermissionSet::default();
        let kind = (place / ACCOUNTS % 100) as u16;
        for bit in [PERMISSION, 10, 20, 30, 40, 50, 60, 100 + kind] {
            permissions.insert(Bit::catalogue(bit).expect("below 256"));
        }
        let teams = [place % 7, 7 + place % 5].map(|team| TeamId::from_stored(&format!("team-{team:02}")));
        TokenFacts {
            key_id: KeyId::from_uuid(Uuid::from_u128(place as u128 + 1)),
            account_id: AccountId::from_stored(&Self::account(place)),
            account_suspended: false,
            state: ApiKeyState::Active,
            expire_time: None,
            token_end_time: None,
            account_permissions: permissions,
            team_permissions: PermissionSet::of(Bit::catalogue(5).expect("below 256")),
            team_ids: Arc::new(teams),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

#[async_trait]
impl Primary for Keys {
    async fn fill(&self, digests: &[HashedToken], sent: &Sent<'_>) -> Result<Fill, Unavailable> {
        sent.mark();
        let found = digests.iter().find_map(|digest| Some((*digest, *self.by_digest.get(digest)?)));
        let token = found.map(|(digest, place)| (digest, self.facts(place as usize)));
        Ok(Fill { revision: HEAD, catalogue: self.catalogue.clone(), token, lacks_pepper: false, database_time: now() })
    }

    async fn head(&self, sent: &Sent<'_>) -> Result<Head, Unavailable> {
        sent.mark();
        Ok(Head { revision: HEAD, hash: GENESIS, database_time: now() })
    }

    async fn events_after(&self, _number: i64, _limit: u32) -> Result<Vec<LogEntry>, Unavailable> {
        Ok(vec![])
    }

    async fn refresh(&self) -> Result<Arc<Catalogue>, Unavailable> {
        Ok(self.catalogue.clone())
    }

    async fn catalogue(&self) -> Result<Arc<Catalogue>, Unavailable> {
        Ok(self.catalogue.clone())
    }

    async fn register(&self, _registration: &Registration) -> Result<(), Unavailable> {
        Ok(())
    }

    async fn missing_peppers(&self) -> Result<Vec<String>, Unavailable> {
        Ok(vec![])
    }

    async fn acknowledge(&self, _acknowledgement: &Acknowledgement) -> Result<Acknowledged, Unavailable> {
        Ok(Acknowledged::Recorded)
    }

    async fn deregister(&self, _incarnation: Uuid) -> Result<(), Unavailable> {
        Ok(())
    }
}
