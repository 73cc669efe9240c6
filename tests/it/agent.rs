//! What Istio's agent says on the proxy's stream: whether the application is ready, and what it asks for besides the proxy.
//!
//! A control plane, an application and outrigger on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use e2e::mesh::PATIENCE;
use e2e::process::{Process, until};
use e2e::tools;
use outrigger_demo::control_plane::{ControlPlane, Received, Snapshot};

const HEALTH: &str = "type.googleapis.com/istio.v1.HealthInformation";

#[test]
fn the_application_s_health_is_told_on_change_and_again_on_each_stream() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let control_plane = ControlPlane::new();
    control_plane.serve("alone", Snapshot::default());
    let (listener, port) = listen();
    control_plane.listen(listener).expect("a listener");
    let (status, application) = application();
    let folder = tools::open_folder("outrigger-e2e-agent-");
    let bootstrap = folder.path().join("bootstrap.yaml");
    std::fs::write(&bootstrap, text(port, application)).expect("our folder");
    let mut command = Command::new(tools::outrigger());
    command.arg("-c").arg(&bootstrap).args(["--concurrency", "1"]);
    let outrigger = Process::start(command, "outrigger", folder.path());

    let told = |stream: u64| -> Vec<Option<String>> {
        let received = control_plane.journal().received.into_iter();
        let health = received.filter(|request| request.stream == stream && request.type_url == HEALTH);
        health.map(|request| request.error).collect()
    };
    let wait = |stream: u64, expected: &[Option<&str>]| {
        let expected: Vec<_> = expected.iter().map(|error| error.map(str::to_owned)).collect();
        until(
            &format!("{expected:?} on stream {stream}; {}", outrigger.stderr()),
            PATIENCE,
            || (told(stream) == expected).then_some(()),
        );
    };
    // While it starts it may be asked before it is ready.
    until(&format!("ready; {}", outrigger.stderr()), PATIENCE, || {
        told(1).last().filter(|error| error.is_none()).map(drop)
    });
    let before = told(1);
    let bad = Some("answered 503, and 200 to 399 is ready");
    status.store(503, Ordering::Relaxed);
    let mut expected: Vec<_> = before.iter().map(Option::as_deref).collect();
    expected.push(bad);
    wait(1, &expected);
    let first: Vec<Received> = control_plane.journal().received;
    control_plane.drop_streams("alone");
    wait(2, &[bad]);
    status.store(200, Ordering::Relaxed);
    wait(2, &[bad, None]);

    let place = |type_name: &str| {
        let of_type = |request: &Received| request.type_url.ends_with(type_name) && request.nonce.is_empty();
        first
            .iter()
            .position(of_type)
            .unwrap_or_else(|| panic!("{type_name} was not asked for"))
    };
    let listeners = place(".Listener");
    for type_name in [".NameTable", ".mesh.v1alpha1.ProxyConfig", ".HealthInformation"] {
        assert!(
            place(type_name) > listeners,
            "{type_name} goes after the first listeners"
        );
    }
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// An application that answers with the status that is set; its port.
fn application() -> (Arc<AtomicU16>, u16) {
    let (listener, port) = listen();
    let status = Arc::new(AtomicU16::new(200));
    let answered = status.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            // A whole request fits one read: the client writes it at once.
            let _ = stream.read(&mut [0; 1024]);
            let status = answered.load(Ordering::Relaxed);
            let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (status, port)
}

fn text(control_plane: u16, application: u16) -> String {
    format!(
        "node:
  id: alone
  cluster: alone
  metadata:
    DNS_CAPTURE: \"true\"
    PROXY_CONFIG_XDS_AGENT: \"true\"
    PROXY_CONFIG:
      readinessProbe: {{ httpGet: {{ host: 127.0.0.1, port: {application}, path: /ready }}, periodSeconds: 1 }}
dynamic_resources:
  ads_config: {{ api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [ envoy_grpc: {{ cluster_name: xds }} ] }}
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    type: STATIC
    load_assignment:
      cluster_name: xds
      endpoints: [ lb_endpoints: [ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {control_plane} }} }} }} ] ]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
"
    )
}
