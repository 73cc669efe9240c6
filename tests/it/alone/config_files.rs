//! Configuration in files that change: clusters, listeners, routes and endpoints, each with a file of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::http::Request;
use e2e::proxy::Kind;

const FIRST: u16 = 10_000;
const SECOND: u16 = 10_001;

/// A change is in force after this long at most.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn what_is_in_the_files_is_what_is_served() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let folder = e2e::tools::open_folder("outrigger-e2e-config-");
        let files = Files(folder.path());
        files.routes(201);
        files.listeners(&[FIRST]);
        files.mount("v1", &["a"]);
        files.mount("v2", &["a", "b"]);
        std::os::unix::fs::symlink("v1", folder.path().join("..data")).expect("our folder");
        std::os::unix::fs::symlink("..data/clusters.yaml", folder.path().join("clusters.yaml"))
            .expect("our folder");
        files.endpoints(9001);
        let alone = Alone::start(kind, &configuration(folder.path()), |_, _| {});
        becomes(&alone, "the first routes", || status(&alone, FIRST) == Some(201));
        assert_eq!(hosts(&alone, "a"), ["127.0.0.1:9001"], "{kind:?}");

        files.routes(202);
        becomes(&alone, "other routes", || status(&alone, FIRST) == Some(202));
        files.listeners(&[FIRST, SECOND]);
        becomes(&alone, "one more listener", || {
            status(&alone, SECOND) == Some(202)
        });
        files.put("listeners.yaml", "resources: [ {");
        std::thread::sleep(SOON);
        assert_eq!(
            status(&alone, SECOND),
            Some(202),
            "{kind:?}: the last good ones stay"
        );
        files.listeners(&[FIRST]);
        becomes(&alone, "one listener less", || status(&alone, SECOND).is_none());
        assert_eq!(status(&alone, FIRST), Some(202), "{kind:?}");

        // As the kubelet does.
        std::os::unix::fs::symlink("v2", folder.path().join("..tmp")).expect("our folder");
        fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).expect("our folder");
        becomes(&alone, "one more cluster", || !hosts(&alone, "b").is_empty());
        files.endpoints(9002);
        becomes(&alone, "another endpoint", || {
            hosts(&alone, "a") == ["127.0.0.1:9002"]
        });
    }
}

#[track_caller]
fn becomes(alone: &Alone, what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        let late = start.elapsed() > SOON;
        assert!(
            !late,
            "{:?}: {what}: not within {SOON:?}: {}",
            alone.kind,
            alone.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `None`: nobody listens.
fn status(alone: &Alone, port: u16) -> Option<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let response = alone.send(address, &Request::get("a", "/")).ok()?;
    Some(response.status())
}

/// The addresses of a cluster.
fn hosts(alone: &Alone, cluster: &str) -> Vec<String> {
    let response = alone.admin("/clusters").expect("admin answers");
    let lines = response.body.lines().filter_map(|line| {
        let (host, _) = line
            .strip_prefix(cluster)?
            .strip_prefix("::")?
            .split_once("::cx_active")?;
        Some(host.to_owned())
    });
    lines.collect()
}

/// A folder of files that change by rename.
struct Files<'f>(&'f Path);

impl Files<'_> {
    fn put(&self, name: &str, text: &str) {
        let new = self.0.join("new");
        fs::write(&new, text).expect("our folder");
        fs::rename(new, self.0.join(name)).expect("our folder");
    }

    fn source(&self, name: &str) -> String {
        let (file, folder) = (self.0.join(name), self.0);
        format!(
            "{{ resource_api_version: V3, path_config_source: {{ path: {}, watched_directory: {{ path: {} }} }} }}",
            file.display(),
            folder.display()
        )
    }

    fn routes(&self, status: u16) {
        let text = format!(
            r#"resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: routes
  virtual_hosts:
  - name: v
    domains: ["*"]
    routes: [ {{ match: {{ prefix: / }}, direct_response: {{ status: {status} }} }} ]
"#
        );
        self.put("routes.yaml", &text);
    }

    fn listeners(&self, ports: &[u16]) {
        let source = self.source("routes.yaml");
        let one = |port: &u16| {
            format!(
                r#"- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: l{port}
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: l{port}
        rds: {{ route_config_name: routes, config_source: {source} }}
        http_filters:
        - name: router
          typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"#
            )
        };
        let all: String = ports.iter().map(one).collect();
        self.put("listeners.yaml", &format!("resources:\n{all}"));
    }

    /// A folder with the clusters of these names.
    fn mount(&self, folder: &str, names: &[&str]) {
        let source = self.source("endpoints.yaml");
        let one = |name: &&str| {
            format!(
                r#"- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: {name}
  type: EDS
  connect_timeout: 1s
  eds_cluster_config: {{ service_name: s, eds_config: {source} }}
"#
            )
        };
        let all: String = names.iter().map(one).collect();
        let path = self.0.join(folder);
        fs::create_dir(&path).expect("our folder");
        fs::write(
            path.join("clusters.yaml"),
            format!("version_info: {folder}\nresources:\n{all}"),
        )
        .expect("our folder");
    }

    fn endpoints(&self, port: u16) {
        let text = format!(
            r#"resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: s
  endpoints:
  - lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }} ]
"#
        );
        self.put("endpoints.yaml", &text);
    }
}

fn configuration(folder: &Path) -> String {
    let files = Files(folder);
    format!(
        "  clusters: []\ndynamic_resources:\n  cds_config: {}\n  lds_config: {}\n",
        files.source("clusters.yaml"),
        files.source("listeners.yaml")
    )
}
