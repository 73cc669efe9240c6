//! Where a control plane listens, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::TransportError;

/// Where a control plane listens.
///
/// Parsed from `HOST:PORT`, `[V6]:PORT`, `unix:PATH` or `unix:///PATH`; a relative path starts at the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A name or an address (v6 without brackets), and a port.
    Tcp {
        /// Resolved at each attempt.
        host: String,
        /// 1..=65535
        port: u16,
    },
    /// Path of a socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let refuse = |reason: &str| TransportError::Address {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(refuse("no path"));
            }
            return Ok(Address::Unix(path.into()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refuse("no port"))?;
        let port = port
            .parse()
            .ok()
            .filter(|p| *p != 0)
            .ok_or_else(|| refuse("port is not 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(refuse("an IPv6 address needs brackets"));
        }
        let host = bare.unwrap_or(host);
        if host.is_empty() {
            return Err(refuse("no host"));
        }
        Ok(Address::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let check = |text: &str, shown: &str| {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        };
        check("istiod.istio-system.svc:15010", "istiod.istio-system.svc:15010");
        check("10.20.0.1:18000", "10.20.0.1:18000");
        check("[::1]:18000", "[::1]:18000");
        check("unix:./etc/istio/proxy/XDS", "unix:./etc/istio/proxy/XDS");
        check("unix:///var/run/socket", "unix:/var/run/socket");
    }

    #[test]
    fn a_bad_address_is_refused_with_its_text() {
        let check = |text: &str, reason: &str| {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(reason), "{error}");
        };
        check("istiod", "no port");
        check("istiod:0", "port is not");
        check("istiod:70000", "port is not");
        check("::1:80", "brackets");
        check(":80", "no host");
        check("unix:", "no path");
    }
}
