//! The store: implements the ports `app::ports` and `verify::primary` on PostgreSQL.
//!
//! One file per noun; `README.md` maps them. It decides nothing: use-cases judge, foreign keys and
//! CHECKs refuse what is impossible. It knows no gRPC and never sees a token in clear.

mod connection;
pub mod log;
pub mod migrate;
pub mod objects;
mod operator_reads;
mod postgres;
mod purge;
pub mod replica;
mod session;
mod sql;

pub use self::{
    connection::pool::LaneSizes,
    postgres::{PostgresStore, StoreOptions},
    session::SNAPSHOT_BEGIN_SQL,
};
