//! What the system says of names: resolv.conf(5) and hosts(5).
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Kind, Resolved};

const DNS_PORT: u16 = 53;
/// resolv.conf(5): at most three servers, five seconds, two attempts.
const MAX_SERVERS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;

/// The system's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct System {
    /// Name servers.
    pub(crate) servers: Vec<SocketAddr>,
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
    search: Vec<String>,
    /// A name with as many dots is asked for as it is first.
    ndots: usize,
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl System {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`; a file that is not there says nothing.
    pub(crate) fn load() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/etc/resolv.conf"), &read("/etc/hosts"))
    }

    pub(super) fn parse(resolv_conf: &str, hosts: &str) -> Self {
        let mut system = Self {
            servers: Vec::new(),
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            search: Vec::new(),
            ndots: 1,
            hosts: HashMap::new(),
        };
        for line in resolv_conf.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) is not understood.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    system
                        .servers
                        .extend(address.map(|address| SocketAddr::new(address, DNS_PORT)));
                }
                // The last of both counts.
                Some("search" | "domain") => system.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| system.option(option)),
                _ => {}
            }
        }
        system.servers.truncate(MAX_SERVERS);
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            if let Some(address) = words.next().and_then(|word| word.parse().ok()) {
                for name in words {
                    let addresses = system.hosts.entry(name.to_ascii_lowercase()).or_default();
                    addresses.push(address);
                }
            }
        }
        system
    }

    fn option(&mut self, option: &str) {
        let number = |text: &str| text.parse::<u32>().ok();
        match option.split_once(':') {
            Some(("ndots", dots)) => self.ndots = number(dots).map_or(1, |dots| dots.min(15) as usize),
            Some(("timeout", seconds)) => {
                let seconds = number(seconds).map_or(5, |seconds| seconds.clamp(1, 30));
                self.timeout = Duration::from_secs(seconds.into());
            }
            Some(("attempts", times)) => self.attempts = number(times).map_or(2, |times| times.clamp(1, 5)),
            _ => {}
        }
    }

    /// Addresses in the hosts file; they have no time to live.
    pub(super) fn known(&self, name: &str, kind: Kind) -> Option<Resolved> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let addresses = self.hosts.get(&name)?;
        let wanted = addresses
            .iter()
            .filter(|address| address.is_ipv4() == (kind == Kind::V4));
        Some(Resolved {
            addresses: wanted.copied().collect(),
            ttl: Duration::ZERO,
        })
    }

    /// The names to ask for, in order.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self
            .search
            .iter()
            .map(|domain| format!("{name}.{}", domain.trim_matches('.')));
        let own = [name.to_owned()];
        if name.matches('.').count() >= self.ndots {
            own.into_iter().chain(searched).collect()
        } else {
            searched.chain(own).collect()
        }
    }
}
