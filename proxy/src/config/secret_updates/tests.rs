//! Files of secrets, from the bootstrap that names them to the secret in force.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;

use outrigger_model::document::{UnknownFields, parse_bootstrap};
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::config::build::Shared;
use crate::stats::{Registry, TagRules};
use crate::telemetry::access_log::LogSinks;
use crate::telemetry::istio_stats::IstioMetrics;
use crate::telemetry::peer::LocalPeers;

/// A listener whose certificate `server` is in the file `s.yaml`.
struct Scene {
    folder: tempfile::TempDir,
    registry: Arc<Registry>,
    control: Control,
}

impl Scene {
    fn new(file: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = file {
            fs::write(folder.path().join("s.yaml"), text).unwrap();
        }
        let text = format!(
            r#"
static_resources:
  clusters: [ {{ name: c, connect_timeout: 1s }} ]
  listeners:
  - name: l
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    bind_to_port: false
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c }}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs:
            - name: server
              sds_config: {{ resource_api_version: V3, path_config_source: {{ path: {}/s.yaml }} }}
"#,
            folder.path().display()
        );
        let (message, encoded) =
            parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse).unwrap();
        let bootstrap = decode::bootstrap(message).unwrap().value;
        let registry = Registry::new(TagRules::new(&[], true).unwrap());
        let shared = Arc::new(Shared {
            sinks: LogSinks::new(&registry).unwrap(),
            clusters: Arc::default(),
            local_peers: Arc::new(LocalPeers::new(bootstrap.node.clone())),
            drain_time: std::time::Duration::from_secs(1),
            resolves_names: false,
            zone: Default::default(),
            limits: Default::default(),
            istio: IstioMetrics::new(&registry, &bootstrap.node),
            registry: registry.clone(),
        });
        let control = Control::new(bootstrap, encoded.into(), shared, Vec::new()).unwrap();
        Self {
            folder,
            registry,
            control,
        }
    }

    fn put(&mut self, name: &str, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.path().join(name)).unwrap();
        self.control.tick();
    }

    fn server(&self) -> ConfigServer {
        ConfigServer::Path(self.folder.path().join("s.yaml"))
    }

    /// Version in force, and the last complaint, as `/config_dump` shows them.
    fn dumped(&self) -> (Option<String>, Option<String>) {
        let store = self.control.secret_stores.get(&self.server());
        let accepted = store.and_then(|store| store.accepted.get("server"));
        let refused = store.and_then(|store| store.refused.get("server"));
        (
            accepted.map(|accepted| accepted.version.to_string()),
            refused.map(|refused| refused.reason.clone()),
        )
    }

    fn counter(&self, name: &str) -> u64 {
        self.registry.counter(format!("sds.server.{name}")).value()
    }
}

/// A file with one secret, its certificate and key inline or in files.
fn document(version: &str, name: &str, chain: &str, key: &str) -> String {
    format!(
        "{{\"version_info\": \"{version}\", \"resources\": [{{\"@type\": \
         \"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\", \"name\": \"{name}\", \
         \"tls_certificate\": {{\"certificate_chain\": {chain}, \"private_key\": {key}}}}}]}}"
    )
}

fn good(version: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let inline = |pem: String| serde_json::json!({ "inline_string": pem }).to_string();
    let chain = inline(params.self_signed(&key).unwrap().pem());
    document(version, "server", &chain, &inline(key.serialize_pem()))
}

#[test]
fn a_file_that_is_there_is_in_force_at_once() {
    let scene = Scene::new(Some(&good("1")));
    assert!(scene.control.is_initialized());
    assert_eq!(scene.dumped(), (Some("1".to_owned()), None));
}

#[test]
fn a_listener_waits_for_its_file() {
    let mut scene = Scene::new(None);
    scene.control.tick();
    assert!(!scene.control.is_initialized());
    assert_eq!(
        (scene.counter("update_attempt"), scene.counter("update_failure")),
        (1, 1),
        "however often it is tried"
    );
    scene.put("s.yaml", &good("1"));
    assert!(scene.control.is_initialized());
    assert_eq!(
        (scene.counter("update_attempt"), scene.counter("update_success")),
        (2, 1)
    );
}

#[test]
fn the_last_good_content_stays_until_the_next() {
    let mut scene = Scene::new(Some(&good("1")));
    let in_force = Some("1".to_owned());
    scene.put("s.yaml", "garbage");
    assert_eq!(scene.dumped(), (in_force.clone(), None));
    assert_eq!(scene.counter("update_failure"), 1);
    scene.put("s.yaml", &good("2").replace("\"server\"", "\"other\""));
    assert_eq!(scene.dumped(), (in_force.clone(), None));
    assert_eq!(scene.counter("update_rejected"), 1);
    scene.put("s.yaml", &good("3").replace("PRIVATE KEY", "PRIVATE QUAY"));
    let (version, reason) = scene.dumped();
    assert_eq!(version, in_force);
    assert!(reason.unwrap().contains("private key"), "shown in the dump");
    scene.put("s.yaml", &good("4"));
    assert_eq!(scene.dumped(), (Some("4".to_owned()), None));
}

#[test]
fn a_version_that_was_taken_back_is_not_taken_when_its_files_come() {
    let first = good("1");
    let mut scene = Scene::new(Some(&first));
    let at = |name: &str| format!("{{\"filename\": \"{}/{name}\"}}", scene.folder.path().display());
    let second = document("2", "server", &at("chain"), &at("key"));
    scene.put("s.yaml", &second);
    assert!(scene.dumped().1.is_some());
    scene.put("s.yaml", &first);
    assert_eq!(scene.dumped(), (Some("1".to_owned()), None));
    assert!(
        scene.control.secrets.reload().is_empty(),
        "its files are not looked for"
    );
}
