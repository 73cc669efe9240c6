//! Chooses the filter chain for a new downstream connection.
//!
//! Pure: sees a [`ConnectionFacts`], returns the index of a chain; knows nothing of sockets or TLS. A sieve as in Envoy: criteria in a
//! fixed order, at each one the best matches stay; if none matches, only the chains that do not ask stay. No backtracking.
//! Source: listener_components.proto `FilterChainMatch`; contract §1.3.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use outrigger_model::filter_chain::{FilterChainMatch, ServerName, SourceType};
use smallvec::SmallVec;

/// What a connection shows to the matcher.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionFacts<'a> {
    /// Restored destination.
    pub(crate) destination: SocketAddr,
    /// The client.
    pub(crate) source: SocketAddr,
    /// The socket's peer, which may be a balancer that speaks for the client.
    pub(crate) direct_source: SocketAddr,
    /// SNI, lower case; empty when there is none.
    pub(crate) server_name: &'a str,
    /// `raw_buffer` or `tls`.
    pub(crate) transport_protocol: &'a str,
    /// ALPN of the ClientHello, or what the HTTP inspector found.
    pub(crate) application_protocols: &'a [Vec<u8>],
}

type Candidates = SmallVec<[usize; 16]>;

/// The index of the chain to use; `None`: the listener's default chain.
pub(crate) fn choose(chains: &[&FilterChainMatch], facts: &ConnectionFacts<'_>) -> Option<usize> {
    let mut left: Candidates = (0..chains.len()).collect();
    sieve(&mut left, chains, |m| match m.destination_port {
        None => Fit::Unset,
        Some(port) => Fit::of(port == facts.destination.port()),
    });
    sieve(&mut left, chains, |m| {
        prefix_fit(&m.prefix_ranges, facts.destination.ip())
    });
    sieve(&mut left, chains, |m| {
        server_name_fit(&m.server_names, facts.server_name)
    });
    sieve(&mut left, chains, |m| match m.transport_protocol.as_str() {
        "" => Fit::Unset,
        protocol => Fit::of(protocol == facts.transport_protocol),
    });
    sieve_protocols(&mut left, chains, facts.application_protocols);
    sieve(&mut left, chains, |m| {
        prefix_fit(&m.direct_source_prefix_ranges, facts.direct_source.ip())
    });
    sieve(&mut left, chains, |m| match m.source_type {
        SourceType::Any => Fit::Unset,
        SourceType::SameIpOrLoopback => Fit::of(is_local(facts)),
        SourceType::External => Fit::of(!is_local(facts)),
    });
    sieve(&mut left, chains, |m| {
        prefix_fit(&m.source_prefix_ranges, facts.source.ip())
    });
    sieve(&mut left, chains, |m| match m.source_ports.as_slice() {
        [] => Fit::Unset,
        ports => Fit::of(ports.contains(&facts.source.port())),
    });
    left.first().copied()
}

/// How well a chain fits one criterion; the larger rank wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    No,
    Unset,
    Yes(usize),
}

impl Fit {
    fn of(matches: bool) -> Self {
        if matches { Self::Yes(0) } else { Self::No }
    }

    fn rank(self) -> usize {
        match self {
            Self::No => 0,
            Self::Unset => 1,
            Self::Yes(rank) => rank + 2,
        }
    }
}

/// Keeps the candidates with the best fit; those that ask in vain leave.
fn sieve(left: &mut Candidates, chains: &[&FilterChainMatch], fit: impl Fn(&FilterChainMatch) -> Fit) {
    let rank = |index: &usize| chains.get(*index).map_or(0, |chain| fit(chain).rank());
    let best = left.iter().map(rank).max().unwrap_or(0);
    if best == 0 {
        left.clear();
    } else {
        left.retain(|index| rank(index) == best);
    }
}

/// As Envoy: the connection's protocols are tried in their order, the first that any chain lists decides.
fn sieve_protocols(left: &mut Candidates, chains: &[&FilterChainMatch], offered: &[Vec<u8>]) {
    let lists = |index: &usize, protocol: &[u8]| {
        chains.get(*index).is_some_and(|chain| {
            chain
                .application_protocols
                .iter()
                .any(|listed| listed.as_bytes() == protocol)
        })
    };
    match offered
        .iter()
        .find(|protocol| left.iter().any(|index| lists(index, protocol)))
    {
        Some(protocol) => left.retain(|index| lists(index, protocol)),
        None => left.retain(|index| {
            chains
                .get(*index)
                .is_some_and(|chain| chain.application_protocols.is_empty())
        }),
    }
}

fn prefix_fit(ranges: &[IpNet], address: IpAddr) -> Fit {
    if ranges.is_empty() {
        return Fit::Unset;
    }
    let longest = ranges
        .iter()
        .filter(|range| range.contains(&address))
        .map(IpNet::prefix_len)
        .max();
    longest.map_or(Fit::No, |length| Fit::Yes(usize::from(length)))
}

/// Exact beats every suffix; a longer suffix beats a shorter.
fn server_name_fit(names: &[ServerName], sni: &str) -> Fit {
    if names.is_empty() {
        return Fit::Unset;
    }
    names
        .iter()
        .filter_map(|name| match name {
            ServerName::Exact(exact) => (exact == sni).then_some(usize::MAX / 2),
            ServerName::Suffix(suffix) => {
                (sni.len() > suffix.len() && sni.ends_with(suffix)).then_some(suffix.len())
            }
        })
        .max()
        .map_or(Fit::No, Fit::Yes)
}

/// As Envoy's `isSameIpOrLoopback`: of the loopback addresses only 127.0.0.1 and ::1 count.
fn is_local(facts: &ConnectionFacts<'_>) -> bool {
    let loopback = match facts.source.ip() {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST,
    };
    loopback || facts.source.ip() == facts.destination.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        chains: &[FilterChainMatch],
        port: u16,
        transport: &str,
        alpn: &[&str],
        expected: Option<usize>,
    ) {
        let alpn: Vec<_> = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let facts = ConnectionFacts {
            destination: SocketAddr::from(([10, 0, 0, 1], port)),
            source: SocketAddr::from(([10, 0, 0, 9], 40_000)),
            direct_source: SocketAddr::from(([10, 0, 0, 9], 40_000)),
            server_name: "",
            transport_protocol: transport,
            application_protocols: &alpn,
        };
        let borrowed: Vec<_> = chains.iter().collect();
        assert_eq!(
            choose(&borrowed, &facts),
            expected,
            "port {port}, {transport}, {alpn:?}"
        );
    }

    fn chain(port: Option<u16>, transport: &str, alpn: &[&str]) -> FilterChainMatch {
        FilterChainMatch {
            destination_port: port,
            transport_protocol: transport.into(),
            application_protocols: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..FilterChainMatch::default()
        }
    }

    /// The chains of a captured virtualInbound in short.
    fn inbound() -> Vec<FilterChainMatch> {
        vec![
            chain(Some(15006), "", &[]),
            chain(None, "tls", &["istio-http/1.1", "istio-h2"]),
            chain(None, "raw_buffer", &["http/1.1", "h2c"]),
            chain(None, "raw_buffer", &[]),
            chain(None, "tls", &[]),
            chain(Some(9999), "tls", &["istio", "istio-http/1.1"]),
            chain(Some(9999), "raw_buffer", &[]),
        ]
    }

    #[test]
    fn the_port_decides_before_anything_else() {
        let chains = inbound();
        check(
            &chains,
            9999,
            "tls",
            &["istio-http/1.1", "istio", "http/1.1"],
            Some(5),
        );
        check(&chains, 9999, "raw_buffer", &[], Some(6));
        check(&chains, 15006, "raw_buffer", &[], Some(0));
        check(&chains, 80, "raw_buffer", &["http/1.1"], Some(2));
        check(&chains, 80, "tls", &["h2"], Some(4));
    }

    #[test]
    fn there_is_no_way_back_to_a_chain_without_the_port() {
        // TLS with a foreign ALPN on 9999: the portless `tls` chain would fit, but the sieve has passed it.
        check(&inbound(), 9999, "tls", &["h2"], None);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let with_prefix = |range: &str| FilterChainMatch {
            prefix_ranges: vec![range.parse().expect("a range")],
            ..FilterChainMatch::default()
        };
        let chains = [
            with_prefix("10.0.0.0/8"),
            with_prefix("10.0.0.1/32"),
            FilterChainMatch::default(),
        ];
        check(&chains, 80, "raw_buffer", &[], Some(1));
    }

    #[test]
    fn an_exact_server_name_beats_a_suffix() {
        let named = |name| FilterChainMatch {
            server_names: vec![name],
            ..FilterChainMatch::default()
        };
        let chains = [
            named(ServerName::Suffix(".example.com".into())),
            named(ServerName::Exact("a.example.com".into())),
            FilterChainMatch::default(),
        ];
        let pick = |sni: &str| {
            let facts = ConnectionFacts {
                destination: SocketAddr::from(([10, 0, 0, 1], 443)),
                source: SocketAddr::from(([10, 0, 0, 9], 40_000)),
                direct_source: SocketAddr::from(([10, 0, 0, 9], 40_000)),
                server_name: sni,
                transport_protocol: "tls",
                application_protocols: &[],
            };
            choose(&chains.iter().collect::<Vec<_>>(), &facts)
        };
        assert_eq!(
            (pick("a.example.com"), pick("b.example.com"), pick("example.org")),
            (Some(1), Some(0), Some(2))
        );
    }
}
