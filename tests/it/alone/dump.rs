//! `/config_dump` and `/init_dump`: the same questions to both proxies on the same configuration, the same answers.

use e2e::alone::Alone;
use e2e::proxy::Kind;
use outrigger_demo::ca::{Authority, Identity};
use serde_json::Value;

/// Asked of both. What is not named by a path of its own is in the whole dump.
const QUERIES: &[&str] = &[
    "/config_dump",
    "/config_dump?include_eds",
    // Any value counts.
    "/config_dump?include_eds=false",
    "/config_dump?resource=",
    "/config_dump?mask=",
    "/config_dump?mask=,",
    "/config_dump?name_regex=",
    "/config_dump?unknown=x",
    "/config_dump?resource=static_clusters",
    "/config_dump?resource=static_listeners",
    "/config_dump?resource=static_route_configs",
    "/config_dump?resource=static_secrets",
    "/config_dump?resource=static_endpoint_configs&include_eds",
    "/config_dump?resource=static_endpoint_configs",
    "/config_dump?resource=dynamic_active_clusters",
    "/config_dump?resource=dynamic_endpoint_configs&include_eds",
    "/config_dump?resource=dynamic_warming_secrets",
    "/config_dump?resource=dynamic_scoped_route_configs",
    "/config_dump?resource=nope",
    "/config_dump?resource=bootstrap",
    "/config_dump?resource=version_info",
    "/config_dump?resource=static_clusters&resource=static_listeners",
    "/config_dump?resource=static%5Fclusters",
    "/config_dump?mask=bootstrap.node.id,bootstrap.admin",
    "/config_dump?mask=bootstrap.static_resources.secrets",
    "/config_dump?mask=bootstrap.static_resources.clusters.name",
    "/config_dump?mask=bootstrap.nope",
    "/config_dump?mask=static_clusters",
    "/config_dump?mask=static_clusters.cluster",
    "/config_dump?mask=static_clusters,static_listeners",
    "/config_dump?mask=last_updated",
    "/config_dump?mask=version_info",
    "/config_dump?mask=nope",
    "/config_dump?mask=nope,,other",
    "/config_dump?resource=static_clusters&mask=cluster.name,last_updated",
    "/config_dump?resource=static_clusters&mask=cluster.load_assignment.endpoints",
    "/config_dump?resource=static_clusters&mask=cluster.load_assignment.endpoints.lb_endpoints",
    "/config_dump?resource=static_clusters&mask=cluster",
    "/config_dump?resource=static_clusters&mask=cluster.nope",
    "/config_dump?resource=static_clusters&mask=nope",
    "/config_dump?resource=static_clusters&mask=nope.nope",
    "/config_dump?resource=static_listeners&mask=listener.filter_chains",
    "/config_dump?resource=static_secrets&mask=name",
    "/config_dump?resource=dynamic_listeners&mask=nope",
    "/config_dump?resource=static_clusters&name_regex=b",
    "/config_dump?resource=static_clusters&name_regex=nobody",
    "/config_dump?name_regex=web",
    "/config_dump?name_regex=inline",
    "/config_dump?name_regex=a%7Cserver&include_eds",
    "/config_dump?name_regex=b&mask=static_clusters",
    "/config_dump?name_regex=(",
    "/config_dump?name_regex=[",
    "/config_dump?name_regex=*",
    "/init_dump",
    "/init_dump?mask=listener",
    "/init_dump?mask=nope",
];

#[test]
fn dumps_and_refusals_are_envoys() {
    let configuration = configuration();
    let envoy = Alone::start(Kind::Envoy, &configuration, |_, _| {});
    let outrigger = Alone::start(Kind::Outrigger, &configuration, |_, _| {});
    let mut different = Vec::new();
    for query in QUERIES {
        let (theirs, ours) = (answer(&envoy, query), answer(&outrigger, query));
        if theirs != ours {
            different.push(format!("{query}\nEnvoy: {theirs:#?}\nours: {ours:#?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    let whole = answer(&outrigger, "/config_dump");
    let secrets = whole.body.matches("[redacted]").count();
    assert!(
        secrets >= 2 && !whole.body.contains("PRIVATE KEY"),
        "{}",
        whole.body
    );
}

/// What a client can rely on.
#[derive(Debug, PartialEq)]
struct Answered {
    status: u16,
    content_type: String,
    body: String,
}

fn answer(alone: &Alone, query: &str) -> Answered {
    let response = alone.admin(query).expect("the admin answers");
    let headers = &response.head.headers;
    let content_type = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let body = match serde_json::from_str(&response.body) {
        Ok(json) => {
            let mut json = comparable(json);
            if let (true, Some(Value::Array(elements))) =
                (query.contains("resource="), json.get_mut("configs"))
            {
                elements.sort_by_key(Value::to_string);
            }
            format!("{json:#}")
        }
        Err(_) => without_mark(&response.body),
    };
    Answered {
        status: response.status(),
        content_type: content_type.map(|(_, value)| value.clone()).unwrap_or_default(),
        body,
    }
}

/// Protobuf's debug text begins with a mark that changes from run to run, lest somebody rely on it: `goo.gle/debugstr` or another word.
fn without_mark(text: &str) -> String {
    let Some((before, marked)) = text.split_once("goo.gle/") else {
        return text.to_owned();
    };
    let after = marked.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
    format!("{before}{}", after.trim_start())
}

/// Without dates, and without what each says of itself in the node.
fn comparable(mut json: Value) -> Value {
    match &mut json {
        Value::Object(members) => {
            members.retain(|name, _| name != "extensions" && !name.starts_with("user_agent_"));
            for (name, value) in members {
                *value = match name.as_str() {
                    "last_updated" => "then".into(),
                    _ => comparable(value.take()),
                };
                // Envoy's order is that of hash tables.
                if name.starts_with("static_")
                    && let Value::Array(items) = value
                {
                    items.sort_by_key(Value::to_string);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = comparable(item.take())),
        _ => {}
    }
    json
}

fn configuration() -> String {
    let authority = Authority::new("outrigger tests").expect("a root");
    let issued = authority
        .issue(&Identity::new("default", "server"))
        .expect("a certificate");
    let quoted = |text: &str| serde_json::to_string(text).expect("a string");
    let (chain, key, root) = (
        quoted(&issued.chain),
        quoted(&issued.key),
        quoted(&authority.root()),
    );
    format!(
        r#"  secrets:
  - name: server
    tls_certificate:
      certificate_chain: {{ inline_string: {chain} }}
      private_key: {{ inline_string: {key} }}
  - name: roots
    validation_context: {{ trusted_ca: {{ inline_string: {root} }} }}
  clusters:
  - name: a
    type: STATIC
    connect_timeout: 1.5s
    load_assignment:
      cluster_name: a
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 1 }} }} }}
          load_balancing_weight: 3
          metadata: {{ filter_metadata: {{ envoy.lb: {{ v: "1" }} }} }}
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 2 }} }} }}
          health_status: UNHEALTHY
  - name: b
    type: STATIC
    lb_policy: RANDOM
    load_assignment:
      cluster_name: b-service
      policy: {{ overprovisioning_factor: 150 }}
      endpoints:
      - locality: {{ region: r, zone: z }}
        lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 3 }} }} }}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: x
        common_tls_context:
          validation_context_sds_secret_config: {{ name: roots }}
  listeners:
  - name: web
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 10000 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            name: inline
            virtual_hosts:
            - name: any
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: a, timeout: 3s }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  - name: tls
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 10001 }} }}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs: [{{ name: server }}]
      filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: b
"#
    )
}
