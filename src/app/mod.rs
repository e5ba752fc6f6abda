//! The use-cases: each fetches under the right locks, asks `domain` to judge, and has the store carry
//! it out. Knows neither gRPC nor SQL.
//!
//! A mutation is a value that implements `mutation::Mutation`: it names its locks, judges its caller
//! at its own revision (M9), changes, and says what to append to the log. `caller` turns tokens and
//! users into callers; `ports` is what the store must offer.

pub mod api_keys;
mod application;
mod caller;
pub mod directory;
pub mod error;
mod events;
mod fairness;
pub mod mint;
mod mutation;
pub mod ports;
mod propagation;
pub mod types;
mod upkeep;
mod verification;

pub use self::{
    application::{App, AppLimits, MutationObserver},
    caller::session::Session,
    error::AppError,
    events::{
        watch::{WatchAuthorization, Watched, Watching},
        watches::WatchLimits,
    },
    fairness::shares::ShareLimits,
    propagation::wait::Wait,
    verification::FromMemory,
};
pub use crate::verify::{Answer, CacheReader, Cached, Level, LookupBuffer, NamedSet, Question, Verification};
