//! What the tests share: a private PostgreSQL, a server, callers, and a small world to act in.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub mod calls;
pub mod database;
pub mod ground;
pub mod logs;
pub mod process;
pub mod random;
pub mod raw;
pub mod server;
pub mod sql;
pub mod world;

pub use server::{Caller, Server, bearer};
pub use world::World;
