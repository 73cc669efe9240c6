//! Which host a cluster dials that has none of its own.
use super::*;
use crate::stats::{Registry, TagRules};

/// name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, and what is added, as the wire has it.
fn original_dst(more: &[u8]) -> Cluster {
    let bytes = [b"\x0a\x01c\x10\x04\x30\x06".as_slice(), more].concat();
    let config = Arc::new(outrigger_model::decode::cluster(&bytes).unwrap().value);
    let registry = Registry::new(TagRules::new(&[], false).unwrap());
    let stats = ClusterStats::new(&registry, &config.stat_name);
    Cluster::new(config, stats, None, &Arc::default(), |_| unreachable!("no TLS"))
}

#[test]
fn every_request_goes_where_its_client_dialled() {
    let cluster = original_dst(b"");
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..100_000_u32 {
        let dialled = SocketAddr::from(([10, 0, 0, (number % 7) as u8], 80));
        let wish = Wish {
            dialled: Some(dialled),
            ..Wish::default()
        };
        assert_eq!(cluster.choose(&wish, &mut random).unwrap().address, dialled);
    }
    assert_eq!(cluster.dialled_hosts().len(), 7);
}

#[test]
fn the_dialled_port_gives_way_to_the_configured_one() {
    let dialled = Some(SocketAddr::from(([10, 0, 0, 1], 80)));
    let mut random = fastrand::Rng::with_seed(1);
    let wish = Wish {
        dialled,
        ..Wish::default()
    };
    // original_dst_lb_config { upstream_port_override { value: 9 } }
    let cluster = original_dst(b"\x92\x02\x04\x1a\x02\x08\x09");
    let host = cluster.choose(&wish, &mut random).unwrap();
    assert_eq!(host.address, SocketAddr::from(([10, 0, 0, 1], 9)));
    let host = original_dst(b"").choose(&wish, &mut random).unwrap();
    assert_eq!(Some(host.address), dialled);
}
