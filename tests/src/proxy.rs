//! The proxy of a pod: outrigger or Envoy, with the bootstrap of `outrigger demo`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

pub use outrigger_demo::bootstrap::Bootstrap;

use crate::netns::Namespace;
use crate::tools::{self, PROXY_UID};

/// Where a proxy's admin interface listens, inside its pod.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The one under test.
    Outrigger,
    /// The one it is compared with.
    Envoy,
}

impl Kind {
    /// The command that runs this proxy in a pod on a bootstrap file.
    pub fn command(self, namespace: &Namespace, bootstrap: &Path, workers: u32) -> Command {
        let program = match self {
            Self::Outrigger => tools::outrigger(),
            Self::Envoy => tools::envoy(),
        };
        let mut command = namespace.command(PROXY_UID, &program);
        command
            .arg("-c")
            .arg(bootstrap)
            .args(["--concurrency", &workers.to_string(), "-l", "info"]);
        // Else the access log comes every ten seconds.
        command.args(["--file-flush-interval-msec", "50"]);
        if self == Self::Envoy {
            // Else a signal to the group of the shell that ran the tests reaches it.
            command.arg("--disable-hot-restart");
        }
        command
    }
}
