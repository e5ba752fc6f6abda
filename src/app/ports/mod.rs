//! What the use-cases ask of the store: ports, carried out by `store`.
//!
//! A mutation is one transaction ([`Tx`]): lock, judge, change, append, commit (`src/DESIGN.md`, Storage).
//! A read is one snapshot ([`Reader`]).

mod read;
mod replicas;
mod store;
mod write;

pub use self::{
    read::{ApiKeyFilter, CallerState, EventFilter, Page, Reader, ScannedPage, StoredEvent, UserPrincipal},
    replicas::{Registered, ReplicaRow, Replicas},
    store::{Lane, Store, UsageMark},
    write::{Append, Erased, Locks, NewSecret, PersonalDataOf, Prefetch, Purged, Stamp, TeamRemoval, Tx},
};
pub use super::error::StoreResult;
