//! Socket options by number, as configuration names them.
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use outrigger_model::socket::{SocketOption, SocketState};

/// Sets those options that a socket for `address` has in this state.
///
/// # Errors
/// The kernel does not know an option, or refuses its value; the text says which.
pub(super) fn set(
    socket: &impl AsRawFd,
    options: &[SocketOption],
    address: SocketAddr,
    state: SocketState,
) -> io::Result<()> {
    let is_meant = |option: &&SocketOption| {
        option.set_when == state && option.only_v6.is_none_or(|v6| v6 == address.is_ipv6())
    };
    options.iter().filter(is_meant).try_for_each(|option| {
        let (level, name) = (option.option_level, option.option_name);
        number(socket, level, name, &option.option_bytes)
    })
}

/// Sets one option.
///
/// # Errors
/// As [`set`].
pub(super) fn number(socket: &impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let set = uapi::setsockopt(socket.as_raw_fd(), level, name, value);
    set.map_err(|error| {
        let error = io::Error::from_raw_os_error(error.0);
        io::Error::new(error.kind(), format!("socket option {level}/{name}: {error}"))
    })
}
