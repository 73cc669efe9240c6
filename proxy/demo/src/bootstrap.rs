//! The bootstrap of a proxy that gets everything else over xDS: what of Istio's template a mesh needs to come up.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

/// What a bootstrap says.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The node, in proto JSON, as the capture has it.
    pub node: Value,
    /// The control plane.
    pub xds: SocketAddr,
    /// The socket of the secrets.
    pub sds: PathBuf,
    /// Where to serve admin.
    pub admin: SocketAddr,
}

impl Bootstrap {
    /// As YAML.
    pub fn yaml(&self) -> String {
        let Self {
            node,
            xds,
            sds,
            admin,
        } = self;
        let sds = sds.display();
        format!(
            r#"node: {node}
layered_runtime:
  layers:
  - name: global config
    static_layer:
      # As Istio's bootstrap: a fragment is cut off, not refused.
      envoy.reloadable_features.http_reject_path_with_fragment: false
admin:
  address:
    socket_address: {{ address: "{admin_ip}", port_value: {admin_port} }}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc: {{ cluster_name: xds-grpc }}
  cds_config: {{ ads: {{}}, initial_fetch_timeout: 0s, resource_api_version: V3 }}
  lds_config: {{ ads: {{}}, initial_fetch_timeout: 0s, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {{}}
    load_assignment:
      cluster_name: xds-grpc
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: "{xds_ip}", port_value: {xds_port} }}
  - name: sds-grpc
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options: *h2
    load_assignment:
      cluster_name: sds-grpc
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              pipe: {{ path: "{sds}" }}
"#,
            admin_ip = admin.ip(),
            admin_port = admin.port(),
            xds_ip = xds.ip(),
            xds_port = xds.port(),
        )
    }
}
