//! The document that outrigger and Envoy read, as istiod would write it for a static listener and cluster.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Credentials, Job, Kind, MANY, SERVER_SPIFFE, Table, Tls};

/// Istio's default text format (`pilot/pkg/model/accesslog` `EnvoyTextLogFormat`).
const LOG_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
const TRANSPORT_SOCKETS: &str = "type.googleapis.com/envoy.extensions.transport_sockets";
/// As istiod sets circuit breakers when the user sets none; Envoy's own defaults are 1,024 and 3.
const NO_LIMIT: u32 = u32::MAX;

pub(super) fn arguments(file: &str) -> Vec<String> {
    let all = [
        "-c",
        file,
        "--concurrency",
        "1",
        "-l",
        "warning",
        "--file-flush-interval-msec",
        "1000",
        "--disable-hot-restart",
    ];
    all.map(str::to_owned).to_vec()
}

pub(super) fn bootstrap(
    job: &Job,
    listens: SocketAddr,
    admin: SocketAddr,
    with_istio_filters: bool,
    credentials: &Credentials,
) -> Value {
    let mut chain = json!({"filters": [network_filter(job, with_istio_filters)]});
    if job.tls == Tls::Downstream {
        chain["transport_socket"] = downstream_tls(credentials);
    }
    json!({
        "node": {
            "id": format!("sidecar~127.0.0.1~{}.default~default.svc.cluster.local", job.side),
            "cluster": format!("{}.default", job.side),
            "metadata": {
                "NAMESPACE": "default", "WORKLOAD_NAME": job.side, "SERVICE_ACCOUNT": job.side, "MESH_ID": "cluster.local",
                "CLUSTER_ID": "Kubernetes", "LABELS": {"app": job.side, "version": "v1"}
            }
        },
        "admin": {"address": socket(admin)},
        "static_resources": {
            "listeners": [{
                "name": "bench", "address": socket(listens), "filter_chains": [chain],
                "traffic_direction": if job.tls == Tls::Downstream { "INBOUND" } else { "OUTBOUND" }
            }],
            "clusters": [cluster(job, credentials)]
        }
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(job: &Job, credentials: &Credentials) -> Value {
    let thresholds = json!([{
        "max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT, "max_requests": NO_LIMIT, "max_retries": NO_LIMIT,
        "track_remaining": true
    }]);
    let mut cluster = json!({
        "name": "backend", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": thresholds},
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(job.upstream)}}]}]
        }
    });
    if job.kind == Kind::Http2 {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"] = json!({options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {}}
        }});
    }
    if job.tls == Tls::Upstream {
        cluster["transport_socket"] = upstream_tls(credentials);
    }
    cluster
}

fn network_filter(job: &Job, with_istio_filters: bool) -> Value {
    if job.kind == Kind::Tcp {
        return json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": format!("{FILTERS}.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "bench", "cluster": "backend", "access_log": access_log()
        }});
    }
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "use_remote_address": false,
        "normalize_path": true,
        "stream_idle_timeout": "0s",
        "access_log": access_log(),
        "http_filters": http_filters(job, with_istio_filters),
        "route_config": {"name": "bench", "virtual_hosts": virtual_hosts(job.table)}
    }})
}

fn virtual_hosts(table: Table) -> Value {
    let route = |prefix: &str| json!({"name": "default", "match": {"prefix": prefix}, "route": {"cluster": "backend", "timeout": "0s"}});
    let all = |routes: Vec<Value>| json!([{"name": "all", "domains": ["*"], "routes": routes}]);
    match table {
        Table::One => all(vec![route("/")]),
        Table::Prefixes => all((0..MANY)
            .map(|number| route(&format!("/service-{number}/")))
            .collect()),
        Table::Hosts => {
            let hosts = (0..MANY).map(|number| {
                let name = format!("service-{number}.default.svc.cluster.local");
                json!({"name": name, "domains": [name], "routes": [route("/")]})
            });
            hosts.collect()
        }
    }
}

fn access_log() -> Value {
    json!([{"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/stdout",
        "log_format": {"text_format_source": {"inline_string": LOG_FORMAT}}
    }}])
}

/// The list of the captures, in their order; stock Envoy gets those that it has.
fn http_filters(job: &Job, with_istio_filters: bool) -> Value {
    let istio_headers = json!([{"istio_headers": {}}]);
    let (discovery, propagation) = match job.tls {
        Tls::Downstream => ("downstream_discovery", "downstream_propagation"),
        Tls::None | Tls::Upstream => ("upstream_discovery", "upstream_propagation"),
    };
    let peer = json!({"name": "istio.peer_metadata", "typed_config": {
        "@type": "type.googleapis.com/io.istio.http.peer_metadata.Config",
        discovery: istio_headers, propagation: istio_headers
    }});
    let alpn = json!({"name": "istio.alpn", "typed_config": {
        "@type": "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "alpn_override": [
            {"upstream_protocol": "HTTP10", "alpn_override": ["istio-http/1.0", "istio", "http/1.0"]},
            {"upstream_protocol": "HTTP11", "alpn_override": ["istio-http/1.1", "istio", "http/1.1"]},
            {"upstream_protocol": "HTTP2", "alpn_override": ["istio-h2", "istio", "h2"]}
        ]
    }});
    let stats =
        json!({"name": "istio.stats", "typed_config": {"@type": "type.googleapis.com/stats.PluginConfig"}});
    let stock = |name: &str, message: &str, mut config: Value| {
        config["@type"] = json!(format!("{FILTERS}.http.{message}"));
        json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
    };
    let grpc = stock(
        "grpc_stats",
        "grpc_stats.v3.FilterConfig",
        json!({"emit_filter_state": true, "stats_for_all_methods": false}),
    );
    let (fault, cors) = (
        stock("fault", "fault.v3.HTTPFault", json!({})),
        stock("cors", "cors.v3.Cors", json!({})),
    );
    let router = stock("router", "router.v3.Router", json!({}));
    if !with_istio_filters {
        return json!([grpc, fault, cors, router]);
    }
    if job.tls == Tls::Downstream {
        return json!([peer, grpc, fault, cors, stats, router]);
    }
    json!([peer, alpn, grpc, fault, cors, stats, router])
}

fn common_tls(credentials: &Credentials, tls: Tls, validation: Value, alpn: &[&str]) -> Value {
    let own = credentials.of(tls);
    json!({
        "tls_certificates": [{"certificate_chain": {"filename": own.chain}, "private_key": {"filename": own.key}}],
        "validation_context": validation,
        "alpn_protocols": alpn,
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    })
}

fn downstream_tls(credentials: &Credentials) -> Value {
    let validation = json!({"trusted_ca": {"filename": credentials.roots}});
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TRANSPORT_SOCKETS}.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common_tls(credentials, Tls::Downstream, validation, &["istio", "http/1.1"])
    }})
}

fn upstream_tls(credentials: &Credentials) -> Value {
    let validation = json!({
        "trusted_ca": {"filename": credentials.roots},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": SERVER_SPIFFE}}]
    });
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TRANSPORT_SOCKETS}.tls.v3.UpstreamTlsContext"),
        "sni": "outbound_.80_._.server.default.svc.cluster.local",
        "common_tls_context": common_tls(credentials, Tls::Upstream, validation, &["istio"])
    }})
}
