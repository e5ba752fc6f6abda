use super::*;

const CAPS: ConnectionCaps = ConnectionCaps { total_max: 6, per_peer_max: 3 };

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// Serves a connection until it has to go.
fn hold(admitted: AdmittedConnection) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let AdmittedConnection { permit, evicted } = admitted;
        if evicted.await.is_err() {
            // Used: it stays.
            std::future::pending::<()>().await;
        }
        drop(permit);
    })
}

#[tokio::test]
async fn used_connections_are_never_evicted_and_both_caps_hold() {
    let admission = ConnectionAdmission::new(CAPS, ByteBudget::new(1));
    let mut permits = vec![];
    for last in [1, 1, 1, 2, 2] {
        let admitted = admission.admit(address(last)).await.unwrap_or_else(|_| panic!("there is room"));
        admitted.permit.mark_used();
        permits.push(admitted.permit);
    }
    assert_eq!(admission.admit(address(1)).await.err(), Some(CapReached::Peer));
    let sixth = admission.admit(address(3)).await.unwrap_or_else(|_| panic!("there is room")).permit;
    sixth.mark_used();
    assert_eq!(admission.admit(address(4)).await.err(), Some(CapReached::Total));
    drop(permits.pop());
    assert!(admission.admit(address(4)).await.is_ok(), "a permit is free again");
    drop((permits, sixth));
    assert!(admission.shared.permits().peers.is_empty(), "nothing is kept of peers that are gone");
}

#[tokio::test]
async fn the_oldest_that_never_made_a_call_goes_for_a_newcomer() {
    let admission = ConnectionAdmission::new(CAPS, ByteBudget::new(1));
    let used = admission.admit(address(1)).await.unwrap_or_else(|_| panic!("room"));
    used.permit.mark_used();
    let (first, second) = (admission.admit(address(1)).await, admission.admit(address(1)).await);
    let (first, second) =
        (hold(first.unwrap_or_else(|_| panic!("room"))), hold(second.unwrap_or_else(|_| panic!("room"))));
    let newcomer = admission.admit(address(1)).await.unwrap_or_else(|_| panic!("the first goes"));
    newcomer.permit.mark_used();
    first.await.unwrap();
    assert!(!second.is_finished());
    // One of a peer that is below its own cap goes only when all places are taken.
    let others: Vec<_> = [2, 2, 3].map(|last| admission.admit(address(last))).into_iter().collect();
    for other in others {
        hold(other.await.unwrap_or_else(|_| panic!("room")));
    }
    assert!(admission.admit(address(4)).await.is_ok());
    second.await.unwrap();
}

#[test]
fn an_ipv6_peer_is_its_network_and_a_mapped_address_is_the_ipv4_one() {
    let peer = |text: &str| peer_of(text.parse().unwrap());
    assert_eq!(peer("2001:db8:1:2:3:4:5:6"), peer("2001:db8:1:2::1"));
    assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    assert_eq!(peer("::ffff:192.0.2.1"), address(1));
}
