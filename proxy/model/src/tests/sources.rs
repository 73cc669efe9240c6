//! Where resources come from.
use std::time::Duration;

use crate::bootstrap::{ConfigServer, GrpcServer, RestServer};
use crate::decode;
use crate::document::{UnknownFields, parse_bootstrap};
use crate::tls::CertificateSource;

/// A bootstrap's CDS source, and the source of a listener's certificate.
fn sources(cds: &str, sds: &str) -> Result<ConfigServer, String> {
    let text = format!(
        r#"
node: {{ id: a, cluster: a }}
dynamic_resources:
  ads_config: {{ api_type: GRPC, transport_api_version: V3, grpc_services: [ envoy_grpc: {{ cluster_name: c }} ] }}
  cds_config: {{ resource_api_version: V3, {cds} }}
static_resources:
  clusters: [ {{ name: c, connect_timeout: 1s }} ]
  listeners:
  - name: l
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 1 }} }}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c }}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs: [ {{ name: s, sds_config: {{ resource_api_version: V3, {sds} }} }} ]
"#
    );
    let parsed = parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse);
    let (message, _) = parsed.map_err(|error| error.to_string())?;
    let bootstrap = decode::bootstrap(message)
        .map_err(|rejection| rejection.to_string())?
        .value;
    let tls = bootstrap.listeners[0].filter_chains[0].tls.clone().unwrap();
    match tls.common.certificate {
        Some(CertificateSource::Sds(secret)) => Ok(secret.source.unwrap().server),
        other => panic!("{other:?}"),
    }
}

/// The CDS source of a bootstrap without ADS.
fn clusters(cds: &str) -> Result<Option<ConfigServer>, String> {
    let text = format!(
        "node: {{ id: a, cluster: a }}\ndynamic_resources: {{ cds_config: {{ resource_api_version: V3, {cds} }} }}\n"
    );
    let parsed = parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse);
    let (message, _) = parsed.map_err(|error| error.to_string())?;
    let bootstrap = decode::bootstrap(message).map_err(|rejection| rejection.to_string())?;
    Ok(bootstrap.value.cds.map(|source| source.server))
}

const GRPC: &str = "grpc_services: [ envoy_grpc: { cluster_name: c } ]";

/// A server that is told this.
fn metadata(fields: &str) -> String {
    format!(
        "grpc_services: [ {{ envoy_grpc: {{ cluster_name: c }}, initial_metadata: [ {{ {fields} }} ] }} ]"
    )
}

fn api(kind: &str, fields: &str) -> String {
    format!("api_config_source: {{ api_type: {kind}, transport_api_version: V3, {fields} }}")
}

#[test]
fn a_source_is_ads_a_stream_of_its_own_polls_or_a_file() {
    let file = ConfigServer::Path("/s.yaml".into());
    let watched = "path_config_source: { path: /s.yaml, watched_directory: { path: / } }";
    assert_eq!(sources("ads: {}", watched).as_ref(), Ok(&file));
    assert_eq!(sources("ads: {}", "path: /s.yaml").as_ref(), Ok(&file));
    let check = |cds: &str, server: Option<ConfigServer>| assert_eq!(clusters(cds), Ok(server), "{cds}");
    check(watched, Some(file.clone()));
    check("path: /s.yaml", Some(file));
    check("ads: {}", None); // there is no ads_config
    check(&api("GRPC", GRPC), Some(ConfigServer::Grpc(GrpcServer::of("c"))));
    check(
        &api("DELTA_GRPC", GRPC),
        Some(ConfigServer::DeltaGrpc(GrpcServer::of("c"))),
    );
    let told = metadata("key: X-A, value: \"50%% b\"");
    let server = GrpcServer {
        cluster: "c".to_owned(),
        metadata: vec![("x-a".to_owned(), "50% b".to_owned())],
    };
    check(&api("GRPC", &told), Some(ConfigServer::Grpc(server)));
    let polled = |request_timeout| {
        Some(ConfigServer::Rest(RestServer {
            cluster: "c".to_owned(),
            refresh_delay: Duration::from_millis(500),
            request_timeout,
        }))
    };
    let rest = api("REST", "cluster_names: [ c ], refresh_delay: 0.5s");
    check(&rest, polled(Duration::from_secs(1)));
    let rest = api(
        "REST",
        "cluster_names: [ c ], refresh_delay: 0.5s, request_timeout: 3s",
    );
    check(&rest, polled(Duration::from_secs(3)));
}

#[test]
fn a_source_that_cannot_be_asked_is_refused_with_what_to_write() {
    let check = |cds: &str, end: &str| {
        let refused = clusters(cds).unwrap_err();
        assert!(refused.ends_with(end), "{refused}");
    };
    let at = "cds_config.api_config_source";
    check(
        &api("GRPC", "cluster_names: [ c ]"),
        &format!("{at}.cluster_names: are for REST; write grpc_services"),
    );
    check(
        &api("REST", &format!("{GRPC}, refresh_delay: 1s")),
        &format!("{at}.grpc_services: are not for REST; write cluster_names"),
    );
    check(
        &api("REST", "cluster_names: [ c, d ], refresh_delay: 1s"),
        &format!("{at}.cluster_names: needs exactly one server, not 2"),
    );
    check(
        &api("REST", "cluster_names: [ c ]"),
        &format!("{at}.refresh_delay: must be given for REST, and above 0"),
    );
    check(
        &api("GRPC", ""),
        &format!("{at}.grpc_services: needs exactly one server, not 0"),
    );
    for (fields, end) in [
        (
            "key: x-a, value: \"%REQ(a)%\"",
            "value: commands (`%…%`) are not supported here; write `%%` for a percent sign",
        ),
        (
            "key: x-a, value: ä",
            "value: has a byte that gRPC metadata may not have",
        ),
        (
            "key: x-a-bin, value: a",
            "key: \"x-a-bin\" is for binary values, which are not supported",
        ),
        (
            "key: ':path', value: a",
            "key: \":path\" is no name of gRPC metadata",
        ),
    ] {
        let told = metadata(fields);
        check(
            &api("GRPC", &told),
            &format!("{at}.grpc_services[0].initial_metadata[0].{end}"),
        );
    }
    let refused = clusters(&api("AGGREGATED_GRPC", GRPC)).unwrap_err();
    assert!(refused.contains("AGGREGATED_GRPC is not supported"), "{refused}");
    check(
        "path_config_source: { path: '' }",
        "cds_config.path_config_source.path: must not be empty",
    );
    check(
        "self: {}",
        "cds_config.self: is not supported; write ads, api_config_source or path_config_source",
    );
    check(
        "initial_fetch_timeout: 1s",
        "cds_config: has none of ads, api_config_source and path_config_source",
    );
}
