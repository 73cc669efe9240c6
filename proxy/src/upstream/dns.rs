//! Hosts of STRICT_DNS and LOGICAL_DNS clusters: names are asked for again and again, and the hosts follow the answers.
//!
//! STRICT_DNS: every address is a host. LOGICAL_DNS: the first address is. A failure changes nothing but the time of the next question.
//! Source: Envoy docs, service discovery; cluster.proto `dns_refresh_rate`, `dns_failure_refresh_rate`, `respect_dns_ttl`.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use outrigger_model::address::Address;
use outrigger_model::cluster::{Discovery, Dns, DnsLookupFamily, DnsResolver};
use outrigger_model::endpoint::{Endpoint, LoadAssignment};

use super::cluster::Cluster;
use super::upkeep::in_use;
use crate::net::dns::{Kind, Manner, ResolveError, Resolved, System, resolve};
use crate::time;
use crate::worker;

/// A name of an assignment: locality, endpoint, and what to ask for.
#[derive(Debug, Clone)]
struct Target {
    place: (usize, usize),
    name: String,
}

/// What is known of all names of a cluster.
struct Found {
    assignment: LoadAssignment,
    is_logical: bool,
    addresses: RefCell<BTreeMap<(usize, usize), Vec<IpAddr>>>,
}

/// The names that a cluster's hosts have.
fn targets(discovery: &Discovery) -> Vec<Target> {
    let (Discovery::StrictDns(assignment) | Discovery::LogicalDns(assignment)) = discovery else {
        return Vec::new();
    };
    let mut targets = Vec::new();
    for (locality, group) in assignment.localities.iter().enumerate() {
        for (index, endpoint) in group.endpoints.iter().enumerate() {
            if let Address::Host { name, .. } = &endpoint.address {
                targets.push(Target {
                    place: (locality, index),
                    name: name.clone(),
                });
            }
        }
    }
    targets
}

/// The cluster has hosts with names.
pub(crate) fn has_names(discovery: &Discovery) -> bool {
    !targets(discovery).is_empty()
}

/// Follows the names of `cluster`, one task each.
pub(super) fn start(cluster: &Arc<Cluster>) {
    let discovery = &cluster.config.discovery;
    let (Discovery::StrictDns(assignment) | Discovery::LogicalDns(assignment)) = discovery else {
        return;
    };
    let found = Rc::new(Found {
        assignment: assignment.clone(),
        is_logical: matches!(discovery, Discovery::LogicalDns(_)),
        addresses: RefCell::default(),
    });
    for target in targets(discovery) {
        worker::spawn(follow(Arc::downgrade(cluster), found.clone(), target));
    }
}

async fn follow(cluster: Weak<Cluster>, found: Rc<Found>, target: Target) {
    let mut failures = 0;
    while let Some(now) = in_use(&cluster) {
        now.stats.update_attempt.inc();
        let dns = &now.config.dns;
        let answer = lookup(&System::load(), dns, &target.name).await;
        let wait = match answer {
            // There is one host as long as there was one. Source: Envoy `LogicalDnsCluster`.
            Ok(resolved) if resolved.addresses.is_empty() && found.is_logical => {
                now.stats.update_failure.inc();
                failures += 1;
                failure_after(dns, failures)
            }
            Ok(resolved) => {
                failures = 0;
                found.take(&now, &target, resolved.addresses);
                refresh_after(dns, resolved.ttl)
            }
            Err(error) => {
                tracing::debug!(cluster = %now.name, name = target.name, %error, "name not resolved");
                now.stats.update_failure.inc();
                failures += 1;
                failure_after(dns, failures)
            }
        };
        // One answer, or that there is none, is enough to begin with, as in Envoy.
        now.set_resolved();
        drop(now);
        time::sleep(wait).await;
    }
}

/// The time of the answer, if it is to be respected and known, and the jitter.
fn refresh_after(dns: &Dns, ttl: Duration) -> Duration {
    let base = if dns.respects_ttl && !ttl.is_zero() {
        ttl
    } else {
        dns.refresh_rate
    };
    base + dns.jitter.mul_f64(fastrand::f64())
}

/// Fully jittered, longer with each failure; without bounds of its own the refresh rate. Source: Envoy `prepareDnsRefreshStrategy`.
fn failure_after(dns: &Dns, failures: u32) -> Duration {
    let (base, longest) = dns.failure_refresh_rate;
    if base == longest {
        return base;
    }
    let interval = base.saturating_mul(1 << (failures - 1).min(16)).min(longest);
    interval.mul_f64(fastrand::f64()).max(Duration::from_millis(1))
}

/// All addresses of the wanted families.
async fn lookup(system: &System, dns: &Dns, name: &str) -> Result<Resolved, ResolveError> {
    let manner = manner(&dns.resolver);
    let ask = async |kind| resolve(system, &manner, name, kind).await;
    let either = async |first, second| match ask(first).await {
        Ok(resolved) if !resolved.addresses.is_empty() => Ok(resolved),
        _ => ask(second).await,
    };
    match dns.family {
        DnsLookupFamily::V4Only => ask(Kind::V4).await,
        DnsLookupFamily::V6Only => ask(Kind::V6).await,
        DnsLookupFamily::Auto => either(Kind::V6, Kind::V4).await,
        DnsLookupFamily::V4Preferred => either(Kind::V4, Kind::V6).await,
        DnsLookupFamily::All => match (ask(Kind::V4).await, ask(Kind::V6).await) {
            (Ok(mut v4), Ok(v6)) => {
                v4.ttl = [v4.ttl, v6.ttl]
                    .into_iter()
                    .filter(|ttl| !ttl.is_zero())
                    .min()
                    .unwrap_or_default();
                v4.addresses.extend(v6.addresses);
                Ok(v4)
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(error), Err(_)) => Err(error),
        },
    }
}

fn manner(resolver: &DnsResolver) -> Manner {
    let servers = resolver.servers.iter().filter_map(|address| match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) | Address::Host { .. } => None,
    });
    Manner {
        servers: servers.collect(),
        is_fallback: resolver.is_fallback,
        uses_tcp: resolver.uses_tcp,
        is_absolute: resolver.is_absolute,
        timeout: resolver.query_timeout,
        tries: resolver.query_tries,
        rotates: resolver.rotates,
        edns_payload: resolver.edns_payload,
    }
}

impl Found {
    /// An answer; the hosts change if it does.
    fn take(&self, cluster: &Cluster, target: &Target, mut addresses: Vec<IpAddr>) {
        cluster.stats.update_success.inc();
        if self.is_logical {
            addresses.truncate(1);
        }
        // Servers rotate the order, and that means nothing.
        addresses.sort_unstable();
        addresses.dedup();
        let before = self
            .addresses
            .borrow_mut()
            .insert(target.place, addresses.clone());
        // No host is there before the first answer.
        if before.unwrap_or_default() == addresses {
            cluster.stats.update_no_rebuild.inc();
            return;
        }
        cluster.set_endpoints(&self.assignment(), None);
    }

    /// The assignment with addresses in the place of names.
    fn assignment(&self) -> LoadAssignment {
        let addresses = self.addresses.borrow();
        let mut assignment = self.assignment.clone();
        for (locality, group) in assignment.localities.iter_mut().enumerate() {
            let endpoints = group.endpoints.iter().enumerate();
            group.endpoints = endpoints
                .flat_map(|(index, endpoint)| {
                    let known = addresses.get(&(locality, index)).map_or(&[][..], Vec::as_slice);
                    resolved(endpoint, known)
                })
                .collect();
        }
        assignment
    }
}

/// An endpoint for each address; one with an address already is as it is.
fn resolved(endpoint: &Arc<Endpoint>, addresses: &[IpAddr]) -> Vec<Arc<Endpoint>> {
    let Address::Host { port, .. } = &endpoint.address else {
        return vec![endpoint.clone()];
    };
    let at = |address: &IpAddr| {
        Arc::new(Endpoint {
            address: Address::Socket(SocketAddr::new(*address, *port)),
            ..Endpoint::clone(endpoint)
        })
    };
    addresses.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use outrigger_model::decode;
    use tokio::net::UdpSocket;
    use tokio::task::LocalSet;

    use super::*;
    use crate::stats::{Registry, TagRules};
    use crate::upstream::stats::ClusterStats;
    use crate::upstream::upkeep;

    /// Answers each A question with the next of these lists of last bytes of addresses and a TTL of 3 s; the last one stays.
    async fn serve(server: UdpSocket, answers: Vec<Vec<u8>>) {
        let mut answers = answers.into_iter().peekable();
        loop {
            let mut buffer = [0; 512];
            let Ok((length, from)) = server.recv_from(&mut buffer).await else {
                return;
            };
            let Some(answer) = answers.peek().cloned() else {
                return;
            };
            let mut bytes = buffer[..length].to_vec();
            bytes[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
            bytes[6..8].copy_from_slice(&(answer.len() as u16).to_be_bytes());
            for last in answer {
                bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 3, 0, 4, 10, 0, 0, last]);
            }
            let _sent = server.send_to(&bytes, from).await;
            if answers.len() > 1 {
                answers.next();
            }
        }
    }

    fn cluster(logical: bool, server: SocketAddr) -> Arc<Cluster> {
        use outrigger_model::document::{UnknownFields, parse_bootstrap};
        let kind = if logical { "LOGICAL_DNS" } else { "STRICT_DNS" };
        let text = format!(
            "{{static_resources: {{clusters: [{{name: c, type: {kind}, respect_dns_ttl: true, dns_lookup_family: V4_ONLY, \
             dns_failure_refresh_rate: {{base_interval: 1s}}, typed_dns_resolver_config: {{name: c, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: \
             [{{socket_address: {{address: {}, port_value: {}}}}}]}}}}, load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: \
             [{{endpoint: {{address: {{socket_address: {{address: name.test., port_value: 80}}}}}}}}]}}]}}}}]}}}}",
            server.ip(),
            server.port(),
        );
        let (proto, _) =
            parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse).expect("a bootstrap");
        let mut bootstrap = decode::bootstrap(proto).expect("valid").value;
        let config = Arc::new(bootstrap.clusters.remove(0));
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let stats = ClusterStats::new(&registry, &config.stat_name);
        Arc::new(Cluster::new(config, stats, None, &Arc::default(), |_| {
            unreachable!("no TLS")
        }))
    }

    fn lasts(cluster: &Cluster) -> Vec<u8> {
        let last = |host: &Arc<crate::upstream::endpoint::Host>| match host.address.ip() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        cluster.hosts().all.iter().map(last).collect()
    }

    /// Hosts after each of the answers.
    async fn check(logical: bool, answers: &[&[u8]], expected: &[&[u8]]) {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let cluster = cluster(logical, server.local_addr().expect("bound"));
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                let serving = tokio::task::spawn_local(serve(server, answers));
                upkeep::start(&cluster);
                let answers = || cluster.stats.update_success.value() + cluster.stats.update_failure.value();
                for hosts in expected {
                    let waited = answers();
                    while answers() == waited {
                        time::sleep(Duration::from_millis(50)).await;
                    }
                    assert_eq!(lasts(&cluster), *hosts);
                    assert!(cluster.is_warm());
                }
                serving.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn every_address_of_a_strict_name_is_a_host_while_it_is_answered() {
        check(false, &[&[2, 1], &[1, 3], &[]], &[&[1, 2], &[1, 3], &[]]).await;
    }

    #[tokio::test]
    async fn a_logical_name_has_its_first_address_and_keeps_one() {
        check(true, &[&[2, 1], &[5], &[]], &[&[2], &[5], &[5]]).await;
    }

    #[test]
    fn the_next_question_comes_after_the_time_of_the_answer_or_the_backoff() {
        let dns = |respects_ttl, failure| Dns {
            refresh_rate: Duration::from_secs(5),
            failure_refresh_rate: failure,
            respects_ttl,
            family: DnsLookupFamily::Auto,
            jitter: Duration::ZERO,
            resolver: DnsResolver::default(),
        };
        let seconds = Duration::from_secs;
        let plain = (seconds(5), seconds(5));
        assert_eq!(refresh_after(&dns(false, plain), seconds(30)), seconds(5));
        assert_eq!(refresh_after(&dns(true, plain), seconds(30)), seconds(30));
        assert_eq!(refresh_after(&dns(true, plain), Duration::ZERO), seconds(5));
        let jittered = Dns {
            jitter: seconds(2),
            ..dns(false, plain)
        };
        let waits: Vec<_> = (0..200).map(|_| refresh_after(&jittered, seconds(30))).collect();
        assert!(waits.iter().all(|wait| (seconds(5)..=seconds(7)).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > seconds(6)));
        assert_eq!(failure_after(&dns(true, plain), 3), seconds(5));
        let growing = dns(true, (seconds(1), seconds(10)));
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (40, 10)] {
            let waits: Vec<_> = (0..200).map(|_| failure_after(&growing, failures)).collect();
            assert!(waits.iter().all(|wait| *wait <= seconds(longest)), "{failures}");
            assert!(
                waits.iter().any(|wait| *wait > seconds(longest) / 2),
                "{failures}"
            );
        }
    }
}
