//! The proof of the bookinfo capture: what its VirtualServices say is what productpage's users get.
//!
//! tests/data/bookinfo/istio.yaml is what the operator wrote. Envoy on both sides shows what each answer is.

mod details;
mod ratings;
mod reviews;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use e2e::http::Request;
use e2e::mesh::{Mesh, Plan, Scenario};

use crate::pair::Pair;

/// Whose users ask.
const CLIENT: &str = "productpage-v1";

/// The cluster IP of a service and its port; all of this application listen on 9080.
const fn service(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 1, last)), 9080)
}

/// Productpage and `pods`.
fn mesh(pair: Pair, pods: &'static [&'static str]) -> Mesh {
    let mesh = Mesh::start(&Plan::new(Scenario::Bookinfo, pair.front, pair.bill).only(pods));
    crate::pair::assert_nothing_refused(&mesh);
    mesh
}

fn get(host: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let request = Request::get(host, target);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(name, value))
}
