//! Where secrets come from, and where nothing else does.
use crate::bootstrap::ConfigServer;
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

#[test]
fn secrets_come_from_files_and_nothing_else_does() {
    let file = ConfigServer::Path("/s.yaml".into());
    let watched = "path_config_source: { path: /s.yaml, watched_directory: { path: / } }";
    assert_eq!(sources("ads: {}", watched).as_ref(), Ok(&file));
    assert_eq!(sources("ads: {}", "path: /s.yaml").as_ref(), Ok(&file));
    let check = |cds: &str, sds: &str, end: &str| {
        let refused = sources(cds, sds).unwrap_err();
        assert!(refused.ends_with(end), "{refused}");
    };
    let end = "cds_config.path_config_source: is only supported for secrets; write ads";
    check("path_config_source: { path: /c }", watched, end);
    check(
        "path: /c",
        watched,
        "cds_config.path: is only supported for secrets; write ads",
    );
    check(
        "ads: {}",
        "path_config_source: { path: '' }",
        "sds_config.path_config_source.path: must not be empty",
    );
    let end = "sds_config.self: is not supported; write ads, api_config_source or path_config_source";
    check("ads: {}", "self: {}", end);
    let end = "sds_config: has none of ads, api_config_source and path_config_source";
    check("ads: {}", "initial_fetch_timeout: 1s", end);
}
