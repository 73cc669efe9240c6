//! One run at a time in a network namespace.
//!
//! Two at once would each find nothing, and the one that comes second would take back what the first has written. A
//! name in the abstract namespace of Unix sockets belongs to the network namespace, needs no file system, and is
//! free again when its holder is gone, however it went. Programs that were started hold it too: one that outlives a
//! killed run still writes. Source: unix(7).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

const NAME: &str = "outrigger-iptables-init";
const PAUSE: Duration = Duration::from_millis(10);
/// As long as the iptables programs wait for each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// Held until it is dropped.
pub struct Turn {
    _name: UnixDatagram,
}

impl Turn {
    /// Waits until no other run works in this network namespace.
    ///
    /// # Errors
    /// `AddrInUse` after half a minute; the kernel's to making a socket.
    pub fn take() -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let name = SocketAddr::from_abstract_name(NAME)?;
        loop {
            match UnixDatagram::bind_addr(&name) {
                Ok(socket) => {
                    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
                    return Ok(Turn { _name: socket });
                }
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => pause(),
            }
        }
    }
}

// No worker of this program has connections that a pause could stop.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(PAUSE);
}
