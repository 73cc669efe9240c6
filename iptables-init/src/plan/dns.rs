//! Step 13: DNS queries go to the proxy's resolver.
//!
//! UDP has no connection that keeps the proxy's queries to a server apart from the app's to the same server, so
//! the two get conntrack zones of their own. Source: Istio `SetupDNSRedir` and `addDNSConntrackZones`.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::matches::{destination, destination_port, protocol, source};
use super::{Owner, Plan};
use crate::config::Dns;
use crate::rule::{Chain, Family, Match, Protocol, Table, Target, Test};

/// Where servers listen.
pub const DNS_PORT: u16 = 53;
/// Where the proxy's resolver listens, TCP and UDP.
const RESOLVER_PORT: NonZeroU16 = NonZeroU16::new(15053).expect("15053 is not 0");
/// Between the proxy and servers.
const UPSTREAM_ZONE: u16 = 1;
/// Between apps and the proxy.
const DOWNSTREAM_ZONE: u16 = 2;

/// Servers of one rule: one of a family, or all of both families.
type Server = (Option<Family>, Option<IpNet>);

impl Plan<'_> {
    pub(super) fn dns(&mut self) {
        let Some(dns) = &self.config.dns else { return };
        let servers = self.servers(dns);
        let jump = Target::Jump(Chain::IstioOutputDns);
        self.append(Table::Raw, Chain::Output, vec![], jump);
        let served = self.served(&servers);
        for family in &served {
            self.outbound(*family, vec![], jump);
        }
        for proto in [Protocol::Tcp, Protocol::Udp] {
            for (family, server) in &servers {
                let mut matches = vec![protocol(proto), destination_port(DNS_PORT)];
                matches.extend(server.map(destination));
                self.add(
                    *family,
                    Table::Nat,
                    Chain::IstioOutputDns,
                    matches,
                    Target::Redirect(RESOLVER_PORT),
                );
            }
        }
        self.zones(&servers, &served);
    }

    fn zones(&mut self, servers: &[Server], served: &[Option<Family>]) {
        let config = self.config;
        let users = config.proxy_uids.iter().map(Owner::User);
        for owner in users.chain(config.proxy_gids.iter().map(Owner::Group)) {
            let to_server = vec![protocol(Protocol::Udp), destination_port(DNS_PORT), owner.is()];
            self.dns_zone(None, Chain::IstioOutputDns, to_server, UPSTREAM_ZONE);
            let to_app = vec![
                protocol(Protocol::Udp),
                source_port(RESOLVER_PORT.get()),
                owner.is(),
            ];
            self.dns_zone(None, Chain::IstioOutputDns, to_app, DOWNSTREAM_ZONE);
        }
        for family in served {
            self.add(
                *family,
                Table::Raw,
                Chain::Prerouting,
                vec![],
                Target::Jump(Chain::IstioInbound),
            );
        }
        for (family, server) in servers {
            let mut queries = vec![protocol(Protocol::Udp), destination_port(DNS_PORT)];
            queries.extend(server.map(destination));
            self.dns_zone(*family, Chain::IstioOutputDns, queries, DOWNSTREAM_ZONE);
            let mut answers = vec![protocol(Protocol::Udp), source_port(DNS_PORT)];
            answers.extend(server.map(source));
            self.dns_zone(*family, Chain::IstioInbound, answers, UPSTREAM_ZONE);
        }
    }

    fn dns_zone(&mut self, family: Option<Family>, chain: Chain, matches: Vec<Match>, zone: u16) {
        self.add(family, Table::Raw, chain, matches, Target::Zone(zone));
    }

    fn servers(&self, dns: &Dns) -> Vec<Server> {
        match dns {
            Dns::All => vec![(None, None)],
            Dns::Servers(addresses) => {
                let nets: Vec<IpNet> = addresses.iter().copied().map(IpAddr::into).collect();
                let nets = self.by_family(&nets).into_iter();
                nets.map(|(family, net)| (Some(family), Some(net))).collect()
            }
        }
    }

    /// Families that have a server, as one entry if those are all families.
    fn served(&self, servers: &[Server]) -> Vec<Option<Family>> {
        let of = |family: Family| servers.iter().any(|(own, _)| own.is_none_or(|own| own == family));
        let served: Vec<Family> = self
            .families
            .iter()
            .copied()
            .filter(|family| of(*family))
            .collect();
        if served == self.families {
            return vec![None];
        }
        served.into_iter().map(Some).collect()
    }
}

fn source_port(port: u16) -> Match {
    Test::SourcePort(port).into()
}
