//! Placements that Envoy 1.40 made: requests with `x-key: key-0` to `key-199`, hashed by that header, over hosts 127.0.0.1:19001 to 19005.
use std::net::SocketAddr;

use outrigger_model::address::Address;
use outrigger_model::cluster::{HashFunction, LbPolicy, LocalityMode};
use outrigger_model::endpoint::{Endpoint, Health, LoadAssignment, LocalityEndpoints};
use outrigger_model::metadata::Metadata;
use outrigger_model::node::Locality;
use twox_hash::XxHash64;

use super::*;
use crate::time::Instant;
use crate::upstream::circuit_breaker::CircuitBreaker;
use crate::upstream::endpoint::{HostSet, HostState, Making, Previous};
use crate::upstream::lb::tests::pick;
use crate::upstream::lb::{Settings, Wish};

/// Zone, its weight, and the weights of its hosts.
type Group<'a> = (&'a str, Option<u32>, &'a [u32]);

fn placements(groups: &[Group<'_>], policy: LbPolicy, by_hostname: bool) -> String {
    let config = outrigger_model::decode::cluster(b"\x0a\x01c")
        .expect("a cluster")
        .value;
    let settings = Settings {
        policy,
        hash_by_hostname: by_hostname,
        locality: LocalityMode::Weighted,
        ..Settings::of(&config)
    };
    let mut number = 0;
    let localities = groups.iter().map(|(zone, weight, hosts)| LocalityEndpoints {
        locality: Locality {
            zone: (*zone).to_owned(),
            ..Locality::default()
        },
        priority: 0,
        weight: *weight,
        endpoints: hosts
            .iter()
            .map(|weight| {
                number += 1;
                Arc::new(Endpoint {
                    address: Address::Socket(SocketAddr::from(([127, 0, 0, 1], 19_000 + number))),
                    additional_addresses: Default::default(),
                    hostname: format!("host-{number}"),
                    weight: *weight,
                    health: Health::Unknown,
                    metadata: Metadata::default(),
                    health_check: None,
                })
            })
            .collect(),
    });
    let assignment = LoadAssignment {
        localities: localities.collect(),
        overprovisioning_factor: 140,
        weighs_health: false,
        stale_after: None,
        dropped: outrigger_model::fraction::Fraction::NONE,
    };
    let making = Making {
        settings: &settings,
        transport_of: &|_| 0,
        state: &|_, now| HostState::new(now),
        is_checked: false,
        now: Instant::now(),
    };
    let hosts = &HostSet::default();
    let set = HostSet::build(&assignment, making, Previous { hosts, is_own: true });
    let breaker = CircuitBreaker::default();
    let mut random = fastrand::Rng::with_seed(1);
    let place = |key: u32| {
        let wish = Wish {
            hash: Some(XxHash64::oneshot(0, format!("key-{key}").as_bytes())),
            ..Wish::default()
        };
        let port = pick(&set, &breaker, &wish, &mut random).map_or(0, |picked| picked.host.address.port());
        (port - 19_001).to_string()
    };
    (0..200).map(place).collect()
}

const EQUAL: &[Group<'static>] = &[("", None, &[1; 5])];
const WEIGHTED: &[Group<'static>] = &[("", None, &[1, 2, 3, 4, 5])];
const MAGLEV: LbPolicy = LbPolicy::Maglev { table_size: 65_537 };

#[test]
fn maglev_places_keys_as_envoy() {
    assert_eq!(
        placements(EQUAL, MAGLEV, false),
        "1241204121234142140432032232442233233132422420443201420144332244022304213333140034221021330034234213\
         2121102002030414422200444340103023140114301422023221301240431110330314140343231433143431003230101014"
    );
    assert_eq!(
        placements(WEIGHTED, LbPolicy::Maglev { table_size: 1009 }, false),
        "2432234444443343134233421411434042303421134242334433223114223323340444223431123324331233234304331332\
         2412134434314434234411243422430333314344321441040031343043424443342223134441442433403033131324413442"
    );
}

#[test]
fn a_ring_places_keys_as_envoy() {
    let ring = |minimum_size, function| LbPolicy::RingHash {
        minimum_size,
        maximum_size: 8 << 20,
        function,
    };
    assert_eq!(
        placements(EQUAL, ring(1024, HashFunction::XxHash), false),
        "4134412334230431042322232124232401413221103114124421232301031243014041302212311110301402430044411131\
         4043234203100404230404011403414244242044420440212410021100232144010432002401214220421033311003340443"
    );
    assert_eq!(
        placements(WEIGHTED, ring(100, HashFunction::MurmurHash2), false),
        "2433134444232443432213413234342134414143332344422333142424424244422234211022234031214343441114324342\
         4402434233434244023423422414333413444144231313333444434424241444433433243312221420432134243443224112"
    );
}

#[test]
fn names_of_hosts_place_keys_as_envoy() {
    assert_eq!(
        placements(EQUAL, MAGLEV, true),
        "1144402234022233342021130323043200400221102404341003232114413013221243022201143314324014001012214003\
         3212441110230303042031024014444410233031040002232113242323143321413433121404230034321324240441420001"
    );
}

#[test]
fn weights_of_localities_place_keys_as_envoy() {
    assert_eq!(
        placements(&[("b", Some(2), &[1; 3]), ("a", Some(3), &[1; 2])], MAGLEV, false),
        "1244234131334142140432032432444233233132423440443243420144332344033344213333440034221021334034234213\
         2124442042030414432300444340133323440314343422023323301243431110333314140343231433143431043230103314"
    );
}
