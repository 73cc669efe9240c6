//! What unit tests of several modules need.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::net::IpAddr;

use crate::config::{Config, ConfigError, Host};
use crate::flags;

/// The configuration of a command line, on a machine with one IPv4 address.
pub(crate) fn config(line: &str) -> Config {
    try_config(line).unwrap()
}

/// The same, or what is wrong with the line.
pub(crate) fn try_config(line: &str) -> Result<Config, ConfigError> {
    let words = std::iter::once("iptables-init").chain(line.split_whitespace());
    let flags = flags::parse(words.map(OsString::from)).unwrap();
    let addresses: [IpAddr; 2] = [[127, 0, 0, 1].into(), [10, 20, 0, 11].into()];
    let host = Host {
        env: &|_| None,
        uid_of: &|_| None,
        gid_of: &|_| None,
        addresses: &addresses,
        dns_servers: &[],
    };
    Config::new(&flags, &host)
}
