//! Who may connect: caps in total and per peer, and who goes first when one is reached.
//!
//! A connection on which no call was ever made has no claim to its place: when a newcomer finds none, the oldest of
//! those gives up its own. So whoever opens connections only to hold them shuts nobody out.

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

/// How long a newcomer waits for the place of a connection that has to go: the time that a busy thread may take to let
/// go of it.
const EVICTION_WAIT: Duration = Duration::from_millis(200);
/// The bits of an IPv6 address that tell peers apart: whoever has one address has the 2^64 beside it.
const IPV6_PREFIX_BITS: u32 = 64;

/// The most connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionCaps {
    pub total_max: usize,
    pub per_peer_max: usize,
}

/// Which cap a newcomer was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapReached {
    Total,
    Peer,
}

/// Gives places to connections.
pub(crate) struct ConnectionAdmission {
    caps: ConnectionCaps,
    /// Bytes of answers that are not read, for the process.
    unread: Arc<ByteBudget>,
    shared: Arc<AdmissionState>,
}

/// A connection's place, until dropped.
pub(crate) struct ConnectionPermit {
    shared: Arc<AdmissionState>,
    number: u64,
    peer: IpAddr,
    /// Bytes of answers that its peer does not read, and those that nobody does.
    pub unread: [Arc<ByteBudget>; 2],
}

/// A place, and what completes if its holder has to go.
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
    /// The places on which no call was made yet, oldest first.
    unused: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

struct PeerConnections {
    taken: usize,
    unused: BTreeSet<u64>,
    unread: Arc<ByteBudget>,
}

// === impl Admission ===

impl ConnectionAdmission {
    /// With this bound on what all peers leave unread.
    pub(crate) fn new(caps: ConnectionCaps, unread: Arc<ByteBudget>) -> Self {
        Self { caps, unread, shared: Arc::default() }
    }

    /// A place for a connection from an address.
    ///
    /// # Errors
    /// Which cap is reached, with connections that are all in use.
    pub(crate) async fn admit(&self, address: IpAddr) -> Result<AdmittedConnection, CapReached> {
        let peer = peer_of(address);
        let deadline = Instant::now() + EVICTION_WAIT;
        let mut evicted = false;
        loop {
            let full = match self.take(peer) {
                Ok(admitted) => return Ok(admitted),
                Err(full) => full,
            };
            // One has to go for each that comes, and no more.
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

/// What an address has in common with all that its owner has.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> IPV6_PREFIX_BITS))),
    }
}

// === impl Shared, Places ===

impl AdmissionState {
    fn permits(&self) -> MutexGuard<'_, PermitTable> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PermitTable {
    /// Has the oldest unused connection go that keeps a newcomer out; whether there is one.
    fn evict(&mut self, address: IpAddr, full: CapReached) -> bool {
        let number = match full {
            CapReached::Total => self.unused.keys().next().copied(),
            CapReached::Peer => self.peers.get(&address).and_then(|peer| peer.unused.first().copied()),
        };
        let Some(evict) = number.and_then(|number| self.mark_used(number)) else { return false };
        // Gone already, it has freed its place, or is about to.
        let _ = evict.send(());
        true
    }

    /// Takes a place from those that may have to go.
    fn mark_used(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (address, evict) = self.unused.remove(&number)?;
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.unused.remove(&number);
        }
        Some(evict)
    }
}

// === impl Place ===

impl ConnectionPermit {
    /// A call is made on it: from now on it is kept.
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
