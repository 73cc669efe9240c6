//! A certificate in files that change: the file that SDS is, and the files that a secret names.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::alone::Alone;
use e2e::proxy::Kind;
use e2e::tls::{self, Answer};
use outrigger_demo::ca::{Authority, Identity, KeyCert};

/// Its certificate is in a file of secrets.
const WHOLE: u16 = 10_000;
/// Its certificate and its key are in two files that a file of secrets names.
const PARTS: u16 = 10_001;

/// New handshakes show what is on disk after this long at most.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn what_is_on_disk_is_what_new_handshakes_show() {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        let certificates = Certificates::new();
        let [first, second, third] = [certificates.issue(), certificates.issue(), certificates.issue()];
        let folder = tempfile_for_proxy();
        let files = Files(folder.path());
        files.whole(&first);
        files.parts();
        files.put("chain.pem", &first.chain);
        files.put("key.pem", &first.key);
        let alone = Alone::start(kind, &configuration(folder.path()), |_, _| {});
        shows(&alone, WHOLE, &first);
        shows(&alone, PARTS, &first);

        files.whole(&second);
        shows(&alone, WHOLE, &second);
        files.put("whole.yaml", "resources: [ {");
        stays(&alone, WHOLE, &second);
        files.whole(&third);
        shows(&alone, WHOLE, &third);

        // Half of a rotation.
        files.put("chain.pem", &second.chain);
        stays(&alone, PARTS, &first);
        files.put("key.pem", &second.key);
        shows(&alone, PARTS, &second);
        files.put("key.pem", "garbage");
        stays(&alone, PARTS, &second);
        files.put("key.pem", &third.key);
        stays(&alone, PARTS, &second);
        files.put("chain.pem", &third.chain);
        shows(&alone, PARTS, &third);

        if kind == Kind::Outrigger {
            let log = alone.log();
            let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
            // Both are tried every second.
            assert_eq!(lines("/whole.yaml:2:1: "), 1, "{log}");
            assert_eq!(
                lines("private key does not belong to the first certificate"),
                2,
                "{log}"
            );
            assert_eq!(lines("private key holds no private key in pem"), 1, "{log}");
        }
    }
}

/// Where Envoy sees nothing: it waits for renames of the file itself.
#[test]
fn a_file_may_be_written_in_place_or_swapped_with_its_folder() {
    let certificates = Certificates::new();
    let [first, second, third] = [certificates.issue(), certificates.issue(), certificates.issue()];
    let folder = tempfile_for_proxy();
    let at = |name: &str| folder.path().join(name);
    // As the kubelet mounts a secret.
    for (version, issued) in [("v1", &first), ("v2", &second)] {
        fs::create_dir(at(version)).expect("our folder");
        Files(&at(version)).whole(issued);
    }
    std::os::unix::fs::symlink("v1", at("..data")).expect("our folder");
    std::os::unix::fs::symlink("..data/whole.yaml", at("whole.yaml")).expect("our folder");
    let files = Files(folder.path());
    files.parts();
    files.put("chain.pem", &first.chain);
    files.put("key.pem", &first.key);
    let alone = Alone::start(Kind::Outrigger, &configuration(folder.path()), |_, _| {});
    shows(&alone, WHOLE, &first);
    std::os::unix::fs::symlink("v2", at("..tmp")).expect("our folder");
    fs::rename(at("..tmp"), at("..data")).expect("our folder");
    shows(&alone, WHOLE, &second);
    fs::write(at("chain.pem"), &third.chain).expect("our folder");
    fs::write(at("key.pem"), &third.key).expect("our folder");
    shows(&alone, PARTS, &third);
}

/// Envoy refuses a bootstrap whose file is missing; here the listener waits for it, as for a server that does not answer.
#[test]
fn a_file_may_come_after_the_start() {
    let certificates = Certificates::new();
    let issued = certificates.issue();
    let folder = tempfile_for_proxy();
    let late = Duration::from_secs(2);
    let start = Instant::now();
    let writer = {
        let (folder, issued) = (folder.path().to_owned(), issued.clone());
        std::thread::spawn(move || {
            let files = Files(&folder);
            files.parts();
            std::thread::sleep(late);
            files.whole(&issued);
            files.put("chain.pem", &issued.chain);
            files.put("key.pem", &issued.key);
        })
    };
    // Returns when /ready says 200.
    let alone = Alone::start(Kind::Outrigger, &configuration(folder.path()), |_, _| {});
    assert!(start.elapsed() >= late, "ready without a certificate");
    writer.join().expect("written");
    shows(&alone, WHOLE, &issued);
    shows(&alone, PARTS, &issued);
    let log = alone.log();
    for name in ["whole.yaml", "chain.pem"] {
        let path = folder.path().join(name).display().to_string();
        let told = log
            .lines()
            .any(|line| line.contains("No such file") && line.contains(&path));
        assert!(told, "{name}: {log}");
    }
}

/// Waits until new handshakes show it.
#[track_caller]
fn shows(alone: &Alone, port: u16, issued: &KeyCert) {
    let start = Instant::now();
    let expected = Ok(Answer {
        certificate: tls::leaf(&issued.chain),
        status: 200,
    });
    loop {
        let answer = get(alone, port);
        if answer == expected {
            return;
        }
        let state = answer.map(|_| "another certificate".to_owned());
        assert!(
            start.elapsed() < SOON,
            "{:?}: {port}: not within {SOON:?}: {state:?}: {}",
            alone.kind,
            alone.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// New handshakes show it for as long as a change may take to be seen.
#[track_caller]
fn stays(alone: &Alone, port: u16, issued: &KeyCert) {
    let start = Instant::now();
    while start.elapsed() < SOON {
        let answer = get(alone, port).expect("the last good one is in force");
        let same = answer.certificate == tls::leaf(&issued.chain) && answer.status == 200;
        assert!(same, "{:?}: {port}: {}", alone.kind, alone.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn get(alone: &Alone, port: u16) -> Result<Answer, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    tls::get(&alone.namespace, address, None, "").map_err(|error| error.to_string())
}

struct Certificates(Authority);

impl Certificates {
    fn new() -> Self {
        Self(Authority::new("outrigger tests").expect("a root"))
    }

    fn issue(&self) -> KeyCert {
        self.0
            .issue(&Identity::new("default", "server"))
            .expect("a certificate")
    }
}

/// A folder of files that change by rename.
struct Files<'f>(&'f Path);

impl Files<'_> {
    fn put(&self, name: &str, text: &str) {
        let new = self.0.join("new");
        fs::write(&new, text).expect("our folder");
        fs::rename(new, self.0.join(name)).expect("our folder");
    }

    fn whole(&self, issued: &KeyCert) {
        let quoted = |pem: &str| serde_json::Value::from(pem).to_string();
        let text = secret(&format!(
            "certificate_chain: {{ inline_string: {} }}\n    private_key: {{ inline_string: {} }}",
            quoted(&issued.chain),
            quoted(&issued.key)
        ));
        self.put("whole.yaml", &text);
    }

    fn parts(&self) {
        let at = |name: &str| -> PathBuf { self.0.join(name) };
        let text = secret(&format!(
            "certificate_chain: {{ filename: {} }}\n    private_key: {{ filename: {} }}",
            at("chain.pem").display(),
            at("key.pem").display()
        ));
        self.put("parts.yaml", &text);
    }
}

fn secret(certificate: &str) -> String {
    format!(
        "version_info: \"1\"\nresources:\n\
         - \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: server\n  \
         tls_certificate:\n    {certificate}\n"
    )
}

fn tempfile_for_proxy() -> tempfile::TempDir {
    e2e::tools::open_folder("outrigger-e2e-secrets-")
}

fn configuration(folder: &Path) -> String {
    let listeners = [(WHOLE, "whole.yaml"), (PARTS, "parts.yaml")];
    let listeners = listeners.map(|(port, file)| listener(port, &folder.join(file)));
    format!("  listeners:\n{}", listeners.concat())
}

fn listener(port: u16, file: &Path) -> String {
    format!(
        r#"  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{port}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                direct_response: {{ status: 200 }}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs:
            - name: server
              sds_config: {{ resource_api_version: V3, path_config_source: {{ path: {file} }} }}
"#,
        file = file.display()
    )
}
