//! Listeners that change addresses, and the sockets that come of it.
use std::net::{TcpListener, TcpStream};

use outrigger_model::decode::{LISTENER_TYPE, ROUTE_TABLE_TYPE};

use super::*;

/// Ports that are free now.
fn free<const N: usize>() -> [u16; N] {
    let taken: Vec<_> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    std::array::from_fn(|index| taken[index].local_addr().unwrap().port())
}

/// A listener that binds these ports; its routes come over RDS.
fn bound(name: &str, ports: &[u16], rds_name: &str) -> Value {
    let mut listener = listener(name, ports[0], &rds(rds_name, Some("0s")), None);
    listener["bindToPort"] = json!(true);
    let more: Vec<_> = ports[1..]
        .iter()
        .map(|port| json!({ "address": address(*port) }))
        .collect();
    listener["additionalAddresses"] = json!(more);
    listener
}

fn give(control: &mut Control, document: Value, removed: &[&str]) -> Result<(), String> {
    let resources = resources(&[document]).into_values().collect();
    apply(control, LISTENER_TYPE, resources, removed).map_err(|rejections| rejections[0].reason.clone())
}

fn give_routes(control: &mut Control, name: &str) {
    let resources = resources(&[routes(name, "c")]).into_values().collect();
    apply(control, ROUTE_TABLE_TYPE, resources, &[]).unwrap();
}

/// A control whose clusters have come.
fn with_clusters() -> Control {
    let mut control = control();
    apply(
        &mut control,
        outrigger_model::decode::CLUSTER_TYPE,
        Vec::new(),
        &[],
    )
    .unwrap();
    control
}

fn ports(control: &Control) -> Vec<u16> {
    let mut ports: Vec<_> = control
        .bound_listeners()
        .iter()
        .map(|(_, address)| address.port())
        .collect();
    ports.sort_unstable();
    ports
}

fn sorted<const N: usize>(mut ports: [u16; N]) -> [u16; N] {
    ports.sort_unstable();
    ports
}

#[test]
fn nobody_is_taken_in_before_the_listener_is_in_use() {
    let mut control = with_clusters();
    let [port] = free();
    give(&mut control, bound("l", &[port], "r"), &[]).unwrap();
    let connect = || TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.kind());
    assert_eq!(connect().unwrap_err(), std::io::ErrorKind::ConnectionRefused);
    give_routes(&mut control, "r");
    assert_eq!(ports(&control), [port]);
}

#[test]
fn a_listener_that_gets_one_more_address_keeps_the_one_it_has() {
    let mut control = with_clusters();
    let [one, two, three] = free();
    give(&mut control, bound("l", &[one], "r"), &[]).unwrap();
    give_routes(&mut control, "r");
    give(&mut control, bound("l", &[one, two], "r"), &[]).unwrap();
    assert_eq!(ports(&control), sorted([one, two]));
    give(&mut control, bound("l", &[three], "other"), &[]).unwrap();
    give(&mut control, bound("l", &[two], "r"), &[]).unwrap();
    assert_eq!(
        ports(&control),
        [two],
        "not the address of one that was never in use"
    );
}

#[test]
fn a_listener_that_begins_to_bind_is_bound() {
    let mut control = with_clusters();
    let [port] = free();
    give(
        &mut control,
        listener("l", port, &rds("r", Some("0s")), None),
        &[],
    )
    .unwrap();
    give_routes(&mut control, "r");
    assert!(ports(&control).is_empty());
    give(&mut control, bound("l", &[port], "r"), &[]).unwrap();
    assert_eq!(ports(&control), [port]);
    give(
        &mut control,
        listener("l", port, &rds("r", Some("0s")), None),
        &[],
    )
    .unwrap();
    assert!(ports(&control).is_empty());
}

#[test]
fn a_listener_that_is_refused_leaves_the_one_that_waits() {
    let mut control = with_clusters();
    let [port] = free();
    give(&mut control, bound("l", &[port], "r"), &[]).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().port();
    let refused = give(&mut control, bound("l", &[other], "r"), &[]).unwrap_err();
    assert!(refused.contains("free the port"), "{refused}");
    give_routes(&mut control, "r");
    assert_eq!(ports(&control), [port]);
}

#[test]
fn an_address_goes_from_one_name_to_another_in_one_response() {
    let mut control = with_clusters();
    let [port] = free();
    give(&mut control, bound("a", &[port], "r"), &[]).unwrap();
    give_routes(&mut control, "r");
    let refused = give(&mut control, bound("b", &[port], "r"), &[]).unwrap_err();
    assert!(refused.contains("is that of listener \"a\""), "{refused}");
    give(&mut control, bound("b", &[port], "r"), &["a"]).unwrap();
    give_routes(&mut control, "r");
    let names: Vec<_> = control
        .bound_listeners()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["b"]);
}
