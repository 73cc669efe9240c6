//! Configuration that must be refused: said plainly, with what was good before still at work.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::mesh::{Mesh, PATIENCE, Plan, Scenario};
use e2e::process::Process;
use e2e::proxy::Kind;
use e2e::proxy::Kind::{Envoy, Outrigger};
use e2e::tools::{self, PROXY_UID};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use envoy_types::pb::google::protobuf::{Any, BoolValue};
use outrigger_demo::control_plane::{CLUSTER, ENDPOINTS, LISTENER, Named, ROUTES, Verdict};
use prost::Message;

use super::{assert_no_failure, linger, rename_server};

#[test]
fn a_malformed_bootstrap_ends_the_process_and_says_where_it_is_wrong() {
    let mesh = Mesh::build(&Plan::new(Scenario::Bill, Outrigger, Outrigger));
    let good = fs::read_to_string(mesh.folder().join("front/bootstrap.yaml")).unwrap();
    let check = |change: (&str, &str), expected: &[&str]| {
        assert!(good.contains(change.0), "{} is not in the bootstrap", change.0);
        let file = mesh.folder().join("bad.yaml");
        fs::write(&file, good.replacen(change.0, change.1, 1)).unwrap();
        for mode in ["serve", "validate"] {
            let said = refuses(&mesh, &file, &["--mode", mode]);
            let path = file.display().to_string();
            for part in expected.iter().copied().chain([path.as_str()]) {
                assert!(said.contains(part), "{mode}, {change:?}: no {part:?} in {said}");
            }
        }
    };
    check(
        ("dynamic_resources:", "dynamic_resource:"),
        &["dynamic_resource", "dynamic_resources"],
    );
    check(
        ("connect_timeout: 1s", "conect_timeout: 1s"),
        &["static_resources.clusters[0]", "connect_timeout"],
    );
    check(
        ("connect_timeout: 1s", "connect_timeout: soon"),
        &["static_resources.clusters[0].connect_timeout", "soon"],
    );
    check(
        ("type: STATIC", "type: STATIK"),
        &["static_resources.clusters[0].type", "STATIK", "STATIC"],
    );
    check(
        ("port_value: 15000", "port_value: 70000"),
        &["admin.address.socket_address.port_value", "70000"],
    );
    check(("admin:", "admin: ["), &["bad.yaml:"]);
    let missing = mesh.folder().join("missing.yaml");
    let said = refuses(&mesh, &missing, &[]);
    assert!(
        said.contains("missing.yaml") && said.to_lowercase().contains("no such file"),
        "{said}"
    );
}

#[test]
fn a_good_bootstrap_passes_validation() {
    let mesh = Mesh::build(&Plan::new(Scenario::Bill, Outrigger, Outrigger));
    let file = mesh.folder().join("front/bootstrap.yaml");
    let mut process = outrigger(&mesh, &file, &["--mode", "validate"]);
    let status = process.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}{}", process.stdout(), process.stderr());
}

#[test]
fn a_malformed_resource_is_refused_and_the_last_good_one_serves_on() {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, Outrigger, Outrigger));
    let mut routes: RouteConfiguration = current(&mesh, ROUTES, "9999");
    let good = Named::from_message(ROUTES, &routes);
    let load = mesh.load();
    // A string field that is not UTF-8, and a length beyond the end.
    let garbage = |type_url: &str, name: &str| {
        let value = [&[0x0a, name.len() as u8], name.as_bytes(), &[0x12, 0x7f, 0xff]].concat();
        Named {
            name: name.to_owned(),
            any: Any {
                type_url: type_url.to_owned(),
                value,
            },
        }
    };
    for (type_url, name) in [
        (CLUSTER, V1),
        (LISTENER, "0.0.0.0_9999"),
        (ROUTES, "9999"),
        (ENDPOINTS, V1),
    ] {
        let reason = refused(&mesh, type_url, vec![garbage(type_url, name)]);
        assert!(reason.contains(name), "{type_url}: {reason}");
    }
    // Well-formed, and senseless: a regex that does not compile.
    let regex = RegexMatcher {
        regex: "a(b".to_owned(),
        ..Default::default()
    };
    let route = routes.virtual_hosts[0].routes[0].r#match.as_mut().unwrap();
    route.path_specifier = Some(PathSpecifier::SafeRegex(regex));
    let reason = refused(&mesh, ROUTES, vec![Named::from_message(ROUTES, &routes)]);
    for part in ["9999", "virtual_hosts[0].routes[0].match.safe_regex", "a(b"] {
        assert!(reason.contains(part), "no {part:?} in {reason}");
    }
    linger(Duration::from_millis(500));
    let report = load.stop();
    assert_no_failure(&report);
    super::assert_share(&report, "v1", 90.0, 7.0);
    // And a good one is still taken.
    assert_eq!(push(&mesh, ROUTES, vec![good]), Verdict::Ack);
}

#[test]
fn an_unknown_filter_costs_its_listener_only() {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, Outrigger, Outrigger));
    let mut odd: Listener = current(&mesh, LISTENER, "0.0.0.0_8080");
    odd.filter_chains[0].filters.insert(0, unknown_filter());
    // The other one of the same response carries a change that shows.
    let mut good: Listener = current(&mesh, LISTENER, "0.0.0.0_9999");
    rename_server(&mut good, "renamed");
    let named = |listener: &Listener| Named::from_message(LISTENER, listener);
    let reason = refused(&mesh, LISTENER, vec![named(&odd), named(&good)]);
    for part in ["0.0.0.0_8080", "filter_chains[0].filters[0]", "no.such.Filter"] {
        assert!(reason.contains(part), "no {part:?} in {reason}");
    }
    assert!(!reason.contains("0.0.0.0_9999"), "{reason}");
    linger(Duration::from_millis(300));
    let response = mesh.get("/");
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.head.value("server"),
        Some("renamed"),
        "the good listener of a half-bad response did not come"
    );
}

#[test]
fn a_port_in_use_ends_the_process_and_is_named() {
    let mesh = Mesh::build(&Plan::new(Scenario::Bill, Outrigger, Outrigger));
    let good = mesh.folder().join("front/bootstrap.yaml");
    let _taken = occupy(&mesh, 15000);
    let said = refuses(&mesh, &good, &[]);
    assert!(
        said.contains("127.0.0.1:15000") && said.contains("in use"),
        "{said}"
    );

    let _taken = occupy(&mesh, 15080);
    let listener = "static_resources:\n  listeners:\n  - name: mine\n    address: \
                    {socket_address: {address: 127.0.0.1, port_value: 15080}}\n    filter_chains:\n    - filters:\n      \
                    - name: tcp\n        typed_config: {\"@type\": \
                    type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, \
                    cluster: xds-grpc}\n";
    let text = fs::read_to_string(&good)
        .unwrap()
        .replacen("static_resources:\n", listener, 1);
    let file = mesh.folder().join("static.yaml");
    // The admin port is still taken, so admin moves.
    fs::write(&file, text.replacen("port_value: 15000", "port_value: 15005", 1)).unwrap();
    let said = refuses(&mesh, &file, &[]);
    assert!(
        said.contains("127.0.0.1:15080") && said.contains("mine") && said.contains("in use"),
        "{said}"
    );
}

#[test]
fn a_listener_of_the_control_plane_on_a_port_in_use_is_refused_and_named() {
    a_listener_on_a_port_in_use_is_refused(Outrigger);
}

#[test]
fn envoy_too_refuses_a_listener_on_a_port_in_use() {
    a_listener_on_a_port_in_use_is_refused(Envoy);
}

fn a_listener_on_a_port_in_use_is_refused(kind: Kind) {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, kind, kind));
    let _taken = occupy(&mesh, 15081);
    let mut listener: Listener = current(&mesh, LISTENER, "0.0.0.0_8080");
    listener.name = "on-a-taken-port".to_owned();
    listener.bind_to_port = Some(BoolValue { value: true });
    let address = listener.address.as_mut().unwrap();
    use envoy_types::pb::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
    if let Some(Address::SocketAddress(socket)) = &mut address.address {
        socket.address = "127.0.0.1".to_owned();
        socket.port_specifier = Some(PortSpecifier::PortValue(15081));
    }
    let reason = refused(&mesh, LISTENER, vec![Named::from_message(LISTENER, &listener)]);
    for part in ["on-a-taken-port", "127.0.0.1:15081", "in use"] {
        assert!(reason.contains(part), "{kind:?}: no {part:?} in {reason}");
    }
    assert_eq!(mesh.get("/").status(), 200);
}

/// The cluster of subset v1.
const V1: &str = "outbound|9999|v1|bill-service.default.svc.cluster.local";

fn outrigger(mesh: &Mesh, bootstrap: &Path, arguments: &[&str]) -> Process {
    let mut command = mesh
        .pod("front")
        .namespace
        .command(PROXY_UID, &tools::outrigger());
    command.arg("-c").arg(bootstrap).args(arguments);
    // A folder of its own, so that each run's words stand alone.
    let folder: PathBuf = tempfile::Builder::new()
        .prefix("run")
        .tempdir_in(mesh.folder())
        .unwrap()
        .keep();
    Process::start(command, "outrigger", &folder)
}

/// What outrigger says when it ends at once with code 1.
#[track_caller]
fn refuses(mesh: &Mesh, bootstrap: &Path, arguments: &[&str]) -> String {
    let mut process = outrigger(mesh, bootstrap, arguments);
    let status = process.wait(PATIENCE);
    let said = process.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

/// The reason with which front refuses these.
#[track_caller]
fn refused(mesh: &Mesh, type_url: &str, resources: Vec<Named>) -> String {
    match push(mesh, type_url, resources) {
        Verdict::Nack(reason) => reason,
        Verdict::Ack => panic!("front took a bad {type_url}"),
    }
}

#[track_caller]
fn push(mesh: &Mesh, type_url: &str, resources: Vec<Named>) -> Verdict {
    let nonce = mesh
        .control
        .push("front", type_url, resources, Vec::new())
        .expect("front is connected");
    mesh.block_on(mesh.control.verdict(&nonce, PATIENCE))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn current<M: Message + Default>(mesh: &Mesh, type_url: &str, name: &str) -> M {
    let resource = mesh
        .control
        .find("front", type_url, name)
        .expect("the capture has it");
    M::decode(resource.any.value.as_slice()).expect("captures decode")
}

fn unknown_filter() -> Filter {
    let any = Any {
        type_url: "type.googleapis.com/no.such.Filter".to_owned(),
        value: Vec::new(),
    };
    Filter {
        name: "odd".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any)),
    }
}

/// Listens in front's pod, so that nobody else can.
fn occupy(mesh: &Mesh, port: u16) -> TcpListener {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    mesh.pod("front")
        .namespace
        .run(|| TcpListener::bind(address))
        .unwrap()
}
