//! Where everything listens: an address of 127.0.0.0/8 for each pod, and another port where one is taken.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port that somebody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    /// What was to listen there.
    pub(super) what: String,
    /// Where.
    pub(super) wanted: SocketAddr,
    /// Where it listens instead.
    pub(super) instead: SocketAddr,
}

/// The addresses of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its name in the captures.
    pub(super) name: &'static str,
    /// Its address when it was captured.
    pub(super) captured: Ipv4Addr,
    /// The port that its service has in the captures.
    pub(super) service_port: u16,
    /// Where its sidecar takes what is for the application.
    pub(super) inbound: SocketAddr,
    /// Where `virtualOutbound` listens; nobody connects there.
    pub(super) outbound: SocketAddr,
    /// Where its sidecar takes what its application has for bill-service, if it calls.
    pub(super) egress: Option<SocketAddr>,
    /// Admin of its sidecar.
    pub(super) admin: SocketAddr,
    /// Its application.
    pub(super) app: SocketAddr,
}

/// Address and port of every part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// front, then the bills.
    pub(super) pods: Vec<Pod>,
    /// The control plane.
    pub(super) xds: SocketAddr,
}

/// Port of bill-service in the captures.
pub(super) const BILL_PORT: u16 = 9999;
/// Name, captured address and service port of each pod.
const PODS: [(&str, Ipv4Addr, u16); 3] = [
    ("front", Ipv4Addr::new(10, 20, 0, 11), 8080),
    ("bill-v1", Ipv4Addr::new(10, 20, 0, 21), BILL_PORT),
    ("bill-v2", Ipv4Addr::new(10, 20, 0, 22), BILL_PORT),
];
const OUTBOUND_PORT: u16 = 15001;
const ADMIN_PORT: u16 = 15000;
const XDS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15010);

/// The loopback address of a captured one: 10.20.0.21 is 127.20.0.21. Other addresses stay.
pub(super) fn on_loopback(captured: Ipv4Addr) -> Ipv4Addr {
    match captured.octets() {
        [10, b, c, d] => Ipv4Addr::new(127, b, c, d),
        _ => captured,
    }
}

/// Where the application of a pod listens: in a pod it shares the pod's address, which the sidecar has here.
fn of_app(captured: Ipv4Addr) -> Ipv4Addr {
    let [_, b, _, d] = captured.octets();
    Ipv4Addr::new(127, b, 1, d)
}

impl Places {
    /// Every place as it is meant to be.
    pub(super) fn wanted() -> Self {
        let pods = PODS.iter().map(|&(name, captured, service_port)| {
            let at = |port| SocketAddr::new(on_loopback(captured).into(), port);
            Pod {
                name,
                captured,
                service_port,
                inbound: at(service_port),
                outbound: at(OUTBOUND_PORT),
                egress: (name == "front").then(|| at(BILL_PORT)),
                admin: at(ADMIN_PORT),
                app: SocketAddr::new(of_app(captured).into(), service_port),
            }
        });
        Self {
            pods: pods.collect(),
            xds: XDS,
        }
    }

    /// The same with free ports in the place of taken ones, and which those are.
    ///
    /// # Errors
    /// With the place, when nothing can listen there for another reason.
    pub(super) fn free(self) -> Result<(Self, Vec<Replaced>), (SocketAddr, io::Error)> {
        let mut places = self;
        let mut replaced = Vec::new();
        for pod in &mut places.pods {
            let name = pod.name;
            let mut parts = vec![
                (&mut pod.inbound, "inbound"),
                (&mut pod.outbound, "virtualOutbound"),
                (&mut pod.admin, "admin"),
                (&mut pod.app, "app"),
            ];
            parts.extend(
                pod.egress
                    .as_mut()
                    .map(|egress| (egress, "outbound to bill-service")),
            );
            for (place, part) in parts {
                free(place, || format!("{name} {part}"), &mut replaced)?;
            }
        }
        free(&mut places.xds, || "control plane".to_owned(), &mut replaced)?;
        Ok((places, replaced))
    }

    /// Where front's application finds bill-service.
    pub(super) fn bill_service(&self) -> SocketAddr {
        let egress = self.pods.iter().find_map(|pod| pod.egress);
        egress.unwrap_or(self.xds)
    }
}

/// Moves `place` to a free port of its address if its own is taken. Nothing holds it then: a stranger may still come
/// first, and a restarted part must be able to listen there again.
fn free(
    place: &mut SocketAddr,
    what: impl Fn() -> String,
    replaced: &mut Vec<Replaced>,
) -> Result<(), (SocketAddr, io::Error)> {
    match TcpListener::bind(*place) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let wanted = *place;
            let fresh = TcpListener::bind(SocketAddr::new(wanted.ip(), 0)).and_then(|it| it.local_addr());
            *place = fresh.map_err(|error| (wanted, error))?;
            replaced.push(Replaced {
                what: what(),
                wanted,
                instead: *place,
            });
            Ok(())
        }
        Err(error) => Err((*place, error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pods_keep_their_octets_and_stay_on_loopback() {
        let check = |captured: [u8; 4], expected: [u8; 4]| {
            assert_eq!(on_loopback(captured.into()), Ipv4Addr::from(expected));
        };
        check([10, 20, 0, 21], [127, 20, 0, 21]);
        check([10, 96, 0, 10], [127, 96, 0, 10]);
        check([0, 0, 0, 0], [0, 0, 0, 0]);
        check([127, 0, 0, 6], [127, 0, 0, 6]);
        let places = Places::wanted();
        for pod in &places.pods {
            for place in [pod.inbound, pod.outbound, pod.admin, pod.app] {
                assert!(place.ip().is_loopback(), "{place}");
            }
        }
    }

    #[test]
    fn a_taken_port_is_replaced_and_named() {
        let taken = TcpListener::bind("127.20.0.99:0").unwrap();
        let wanted = taken.local_addr().unwrap();
        let mut place = wanted;
        let mut replaced = Vec::new();
        free(&mut place, || "x".to_owned(), &mut replaced).unwrap();
        assert_ne!(place, wanted);
        assert_eq!(place.ip(), wanted.ip());
        let expected = Replaced {
            what: "x".to_owned(),
            wanted,
            instead: place,
        };
        assert_eq!(replaced, [expected]);
        free(&mut place, || "x".to_owned(), &mut replaced).unwrap();
        assert_eq!(replaced.len(), 1, "a free port stays");
    }
}
