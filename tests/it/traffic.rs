//! The proof of the traffic capture: subsets, hashing, rewrites, failover between zones, TCP weights, a rate limit.
//!
//! tests/data/traffic/istio.yaml is what the operator wrote. Envoy on both sides shows what each answer is.

mod failover;
mod limit;
mod providers;
mod routes;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Whose users ask.
const CLIENT: &str = "front";
/// Each in a zone of its own, but for `shop-0` and `shop-2`, which are where front is.
const SHOPS: &[&str] = &["shop-0", "shop-1", "shop-2", "shop-3"];

/// The shop's cluster IP.
const fn shop(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 40)), port)
}
