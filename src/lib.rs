//! # Latchkey
//!
//! A gRPC service that owns API keys: who may mint them, what they may do, and whether the bearer token
//! in front of a service is good right now. The library is the server and its parts (feature `server`)
//! and the generated clients (feature `client`); the program `latchkey` is [`cli`].
//!
//! The numbered rules (P1…V6) are in `proto/RULES.md`, the mechanisms and three walks through the code in
//! `src/DESIGN.md`, the terms in `src/GLOSSARY.md`.
//!
//! ## The layers
//!
//! Dependencies point one way, from the top of this table to its bottom:
//!
//! | module | what it does | must not know |
//! |---|---|---|
//! | [`cli`] | arguments, settings, words for people | rules |
//! | [`server`] | puts the layers together, runs and stops them | rules, SQL |
//! | [`grpc`] | messages in, messages out; every `Status` | SQL, caches |
//! | [`store`] | PostgreSQL: carries out the ports of `app` and `verify` | gRPC, who may do what |
//! | [`telemetry`] | logs, traces, metrics | tokens, headers, bodies |
//! | [`settings`] | reads the configuration: flags, environment, file, defaults | what is done with it |
//! | [`app`] | the use-cases: lock, judge, change, append | gRPC, SQL |
//! | [`verify`] | the hot path: cache, fences, lease, follower, misses | gRPC, SQL |
//! | [`domain`] | the rules, pure | everything above, clocks, I/O |
//!
//! Beside them, [`private_postgres`] starts a real PostgreSQL of one's own, for `latchkey dev` and for the tests. All
//! layers may use `error_chain`, which prints an error with its causes, and [`entropy`], the source of randomness.
//! `ablation` switches mechanisms off for the benchmark of that name, in builds with the feature `ablation` alone.
//!
//! ## The life of a verification
//!
//! 1. [`grpc`] takes the caller's bearer token from the headers and has it verified like any other, before a byte of
//!    the message is read; the caller needs `system.verify`, and is checked again once the message is in hand.
//! 2. [`verify`] looks at the token's form, hashes it and prefetches its entry; it reads lease, clock and applied
//!    revision, computes the checksum (a typo ends here), and looks the digest up in its cache.
//! 3. An entry that every fence covering it lets pass is judged by
//!    [`domain::verification::Standing::outcome`] at the estimate of the database's time. No lock, no
//!    database, no allocation. If that was all that the request needed, [`grpc`] answers it from the bytes that the
//!    transport has, with bytes that are mostly ready-made.
//! 4. Otherwise one query to the primary answers for all who ask for the same token at that moment: one
//!    snapshot of token, key, account, teams, log head and catalogue ([`store::replica::fill`]).
//! 5. The outcome is data. What cannot be known is UNAVAILABLE.
//!
//! ## The life of a mutation
//!
//! 1. [`grpc`] authenticates the caller by the headers, gathers the message within bounds, and checks the syntax of the
//!    request alone, naming every wrong field.
//! 2. A use-case of [`app`] waits for its account's turn, opens a transaction, locks the catalogue and the accounts
//!    that the caller's authority and the change live in (in one order), and only then reads (M9). All of it runs on
//!    the runtime that drives the connections.
//! 3. [`domain::authority`] judges: visibility, authority; then the state, the etag and the quota (M8).
//! 4. The change is written, the log's head is taken last, the event is appended with its hash, the
//!    changed objects are stamped with its revision, and all of it commits at once (V5, V6).
//! 5. The follower of each replica ([`verify`]) applies the event: it raises the fences that cover it, then
//!    advances the applied revision, then acknowledges it in its row of `replicas`.
//! 6. The barrier ([`app`]): a mutation waits until every row of `replicas`, read after the commit, has
//!    applied its revision or can serve no more. Its answer says `complete`, or, when the caller's deadline
//!    comes first, how many replicas are pending (V1).
//!
//! ## The life of a replica
//!
//! 1. It registers a row of its own in `replicas`, under an id that was never used before, and only then
//!    reads the log's head: every later mutation can wait for it. What it remembered before is refused. It must
//!    have every pepper that tokens live under: else it could take a good token for an unknown one.
//! 2. It applies what is new, acknowledges it, and renews its lease in time. A replica that cannot do so
//!    stops answering from memory by itself, and its row is deleted by a mutation that has waited for it that long, or
//!    by a sweep of any other replica.
//! 3. If its row is gone, it joins again. If the database's history is another one than it followed, it
//!    answers UNAVAILABLE until an operator accepts that history, which starts an epoch above all before.
//! 4. When it stops, it gives up its lease first, and then its row.
//!
//! ## The threads
//!
//! Calls are served on threads of their own, one for each processor (`serving_threads`), each with a single-threaded
//! runtime: a connection stays on the one that it was given to, and a verification touches nothing that another thread
//! writes to ([`server`]). Reads that may hold a thread for milliseconds, such as lists, are handed by the gate to the
//! bulk threads, half as many. The follower, the lease, housekeeping, health and the database's other connections are
//! on the runtime that the program starts with; the export of telemetry has a thread to itself, and so has the writing
//! of log lines, for which nothing else ever waits.
//!
//! ## The invariants
//!
//! - **V1** no VALID, and no service to a caller, on authority whose withdrawal was answered complete
//!   before the request was sent;
//! - **V2** a fault may deny or fail, never allow;
//! - **V3** deadlines are never late, and early by at most one round trip to the database;
//! - **V4** no token verifies that was not minted;
//! - **V5** every change has its event and every event its change;
//! - **V6** the chain of events verifies.
//!
//! [`verify`] says where V1 to V4 are kept, [`store`] keeps V5 and V6.
//!
//! ## Deliberately absent
//!
//! - *Roles for keys, or keys that inherit from users*: a key holds what it was granted (K1, K5).
//! - *Removing entries from the cache*: invalidation is a fence, so there is nothing to forget to delete.
//! - *Wildcards and "empty means all"*: the empty set grants nothing (P4).
//! - *Comparing clocks of different machines*: a lease is a span on the clock of the process that counts it.

#[cfg(feature = "server")]
mod ablation;
#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod domain;
#[cfg(feature = "server")]
pub mod entropy;
#[cfg(feature = "server")]
mod error_chain;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod private_postgres;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod settings;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod verify;

/// The messages, clients and services of package `latchkey.v1`, generated from `proto/`, where each is documented.
pub mod proto {
    tonic::include_proto!("latchkey.v1");
}
