//! What a mesh needs beside the proxies: a control plane, a certificate authority, secrets and an application.
//!
//! Shared by `outrigger demo` and by the end-to-end tests. Everything here speaks the wire as istiod, the Istio agent and
//! a plain HTTP service would; nothing here knows how a proxy works inside.
//!
//! - [`control_plane`]: ADS from captured or recorded configuration, under the caller's control.
//! - [`strip`]: the same configuration without the filters that only Istio's build of Envoy has.
//! - [`ca`] and [`sds`]: workload certificates, and the socket from which a proxy fetches them.
//! - [`bootstrap`]: the file that a proxy is started with.
//! - [`run`] and [`child`]: the demo itself, and the processes that it starts.
//! - [`app`]: an HTTP service that tells what reached it; [`http1`] is the little it needs to speak.

#![forbid(unsafe_code)]

pub mod app;
pub mod bootstrap;
pub mod ca;
pub mod child;
pub mod control_plane;
pub mod http1;
pub mod run;
pub mod sds;
pub mod strip;
