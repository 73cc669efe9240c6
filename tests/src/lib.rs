//! Harness of the end-to-end tests: pods as network namespaces, real traffic interception, proxies as processes.
//!
//! A [`mesh::Mesh`] is a bridge with pods. In each pod `iptables-init` programs the nat table, the proxy under test
//! ([`proxy::Kind`]) runs as uid 1337 and the application as another user; the control plane and the certificate authority
//! of `outrigger-demo` run in the test's own process. Several meshes can live at once: each has its own bridge in its own
//! namespace, so the addresses of the captures collide with nothing.
//!
//! An [`alone::Alone`] is one proxy on a static configuration, for what needs no mesh.
//!
//! Everything is undone when the mesh is dropped, also after a panic. Every wait is bounded.

#![forbid(unsafe_code)]

pub mod alone;
pub mod beside;
pub mod http;
pub mod load;
pub mod mesh;
pub mod netns;
pub mod pcap;
pub mod plan;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod tls;
pub mod tools;
