//! Admits connections up to a cap in total and a cap per peer, and evicts unused ones when a cap is reached.
//!
//! A connection that never carried a call has no claim to its permit: when a newcomer finds none free, the oldest
//! unused connection is evicted. So a client that opens connections only to hold them shuts out no other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use crate::server::connection::unread::ByteBudget;

/// How long a newcomer waits for the permit of an evicted connection: the time that a busy thread may take to close it.
const EVICTION_WAIT: Duration = Duration::from_millis(200);
/// The bits of an IPv6 address that identify a peer: the owner of one address has the 2^64 around it.
const IPV6_PREFIX_BITS: u32 = 64;

/// The maximum numbers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionCaps {
    pub total_max: usize,
    pub per_peer_max: usize,
}

/// The cap that a newcomer would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapReached {
    Total,
    Peer,
}

/// Admits connections within the caps.
pub(crate) struct ConnectionAdmission {
    caps: ConnectionCaps,
    /// Bounds the unread bytes of all responses, in the process.
    unread: Arc<ByteBudget>,
    shared: Arc<AdmissionState>,
}

/// Permission to keep a connection open, released on drop.
pub(crate) struct ConnectionPermit {
    shared: Arc<AdmissionState>,
    number: u64,
    peer: IpAddr,
    /// Bounds the unread bytes of responses: of this peer, and of all.
    pub unread: [Arc<ByteBudget>; 2],
}

/// A permit, and a receiver that completes when the connection is evicted.
pub(crate) struct AdmittedConnection {
    pub permit: ConnectionPermit,
    pub evicted: oneshot::Receiver<()>,
}

#[derive(Default)]
struct AdmissionState {
    permits: Mutex<PermitTable>,
    freed: Notify,
}

#[derive(Default)]
struct PermitTable {
    taken: usize,
    next: u64,
    peers: HashMap<IpAddr, PeerConnections>,
    /// The permits of connections that never carried a call, oldest first.
    unused: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

struct PeerConnections {
    taken: usize,
    unused: BTreeSet<u64>,
    unread: Arc<ByteBudget>,
}

// === impl ConnectionAdmission ===

impl ConnectionAdmission {
    /// Creates an admission with these caps and this bound on the unread bytes of all peers.
    pub(crate) fn new(caps: ConnectionCaps, unread: Arc<ByteBudget>) -> Self {
        Self { caps, unread, shared: Arc::default() }
    }

    /// Acquires a permit for a connection from an address.
    ///
    /// # Errors
    /// The cap that is reached by connections that are all in use.
    pub(crate) async fn admit(&self, address: IpAddr) -> Result<AdmittedConnection, CapReached> {
        let peer = peer_of(address);
        let deadline = Instant::now() + EVICTION_WAIT;
        let mut evicted = false;
        loop {
            let full = match self.take(peer) {
                Ok(admitted) => return Ok(admitted),
                Err(full) => full,
            };
            // Each newcomer evicts one connection at most.
            if !evicted && !self.shared.permits().evict(peer, full) {
                return Err(full);
            }
            evicted = true;
            if timeout_at(deadline, self.shared.freed.notified()).await.is_err() {
                return Err(full);
            }
        }
    }

    fn take(&self, address: IpAddr) -> Result<AdmittedConnection, CapReached> {
        let mut permits = self.shared.permits();
        let permits = &mut *permits;
        if permits.taken >= self.caps.total_max {
            return Err(CapReached::Total);
        }
        if permits.peers.get(&address).is_some_and(|peer| peer.taken >= self.caps.per_peer_max) {
            return Err(CapReached::Peer);
        }
        let number = permits.next;
        let new = || PeerConnections { taken: 0, unused: BTreeSet::new(), unread: self.unread.for_a_peer() };
        let peer = permits.peers.entry(address).or_insert_with(new);
        let (evict, evicted) = oneshot::channel();
        permits.next += 1;
        permits.taken += 1;
        peer.taken += 1;
        peer.unused.insert(number);
        permits.unused.insert(number, (address, evict));
        let unread = [peer.unread.clone(), self.unread.clone()];
        Ok(AdmittedConnection {
            permit: ConnectionPermit { shared: self.shared.clone(), number, peer: address, unread },
            evicted,
        })
    }
}

/// Returns the part of an address that its owner cannot vary.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> IPV6_PREFIX_BITS))),
    }
}

// === impl AdmissionState, PermitTable ===

impl AdmissionState {
    fn permits(&self) -> MutexGuard<'_, PermitTable> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PermitTable {
    /// Evicts the oldest unused connection that counts towards the reached cap; returns whether there was one.
    fn evict(&mut self, address: IpAddr, full: CapReached) -> bool {
        let number = match full {
            CapReached::Total => self.unused.keys().next().copied(),
            CapReached::Peer => self.peers.get(&address).and_then(|peer| peer.unused.first().copied()),
        };
        let Some(evict) = number.and_then(|number| self.mark_used(number)) else { return false };
        // If the connection has ended already, its permit is free or about to be.
        let _ = evict.send(());
        true
    }

    /// Protects a connection from eviction.
    fn mark_used(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (address, evict) = self.unused.remove(&number)?;
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.unused.remove(&number);
        }
        Some(evict)
    }
}

// === impl ConnectionPermit ===

impl ConnectionPermit {
    /// Notes that the connection carries a call: from now on it is not evicted.
    pub(crate) fn mark_used(&self) {
        self.shared.permits().mark_used(self.number);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut permits = self.shared.permits();
        permits.mark_used(self.number);
        permits.taken -= 1;
        if let Some(peer) = permits.peers.get_mut(&self.peer) {
            peer.taken -= 1;
            if peer.taken == 0 {
                permits.peers.remove(&self.peer);
            }
        }
        drop(permits);
        self.shared.freed.notify_one();
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
