//! One proxy by itself: a static configuration, in a namespace of its own that has nothing but loopback.
//!
//! For behaviour that needs neither a control plane nor a second proxy. Ports are free: nobody else lives there.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::http::{self, Request, Response};
use crate::netns::Namespace;
use crate::process::{Process, until};
use crate::proxy::{ADMIN, Kind};
use crate::tools;

/// A running proxy and its world.
#[derive(Debug)]
pub struct Alone {
    /// Where it runs. Upstreams are started here too.
    pub namespace: Namespace,
    /// Which proxy.
    pub kind: Kind,
    proxy: Process,
    folder: TempDir,
}

impl Alone {
    /// Starts `kind` on `resources`, the YAML of `static_resources`, and waits until it is ready. `prepare` runs before, with the
    /// namespace, and the folder for files.
    ///
    /// # Panics
    /// When it ends, or is not ready in time.
    pub fn start(kind: Kind, resources: &str, prepare: impl FnOnce(&Namespace, &Path)) -> Self {
        let alone = Self::unready(kind, resources, prepare);
        until(&format!("{kind:?} ready"), crate::mesh::PATIENCE, || {
            let response = alone.admin("/ready").ok()?;
            (response.status() == 200).then_some(())
        });
        alone
    }

    /// As [`Self::start`], for one that may never be ready: waits until its admin interface answers.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn unready(kind: Kind, resources: &str, prepare: impl FnOnce(&Namespace, &Path)) -> Self {
        tools::require();
        let folder = tools::open_folder("outrigger-e2e-alone-");
        let namespace = Namespace::alone();
        prepare(&namespace, folder.path());
        let bootstrap = folder.path().join("bootstrap.yaml");
        let text = format!(
            "node: {{ id: alone, cluster: alone, locality: {{ zone: home }} }}\n\
             admin:\n  address:\n    socket_address: {{ address: \"{}\", port_value: {} }}\n\
             static_resources:\n{resources}",
            ADMIN.ip(),
            ADMIN.port(),
        );
        std::fs::write(&bootstrap, text).expect("our folder");
        let proxy = Process::start(kind.command(&namespace, &bootstrap, 2), "proxy", folder.path());
        let mut alone = Self {
            namespace,
            kind,
            proxy,
            folder,
        };
        until(&format!("{kind:?} answers"), crate::mesh::PATIENCE, || {
            let ended = alone.proxy.ended();
            assert!(
                ended.is_none(),
                "{kind:?} ended: {ended:?}: {}",
                alone.proxy.stderr()
            );
            alone.admin("/ready").ok().map(drop)
        });
        alone
    }

    /// Asks the admin interface.
    ///
    /// # Errors
    /// As [`http::send`].
    pub fn admin(&self, target: &str) -> std::io::Result<Response> {
        http::send(&self.namespace, ADMIN, &Request::get("localhost", target))
    }

    /// Sends a request to `address`.
    ///
    /// # Errors
    /// As [`http::send`].
    pub fn send(&self, address: SocketAddr, request: &Request) -> std::io::Result<Response> {
        http::send(&self.namespace, address, request)
    }

    /// A connection to `port` of its loopback address, for what a request cannot say.
    ///
    /// # Panics
    /// When nothing listens there.
    pub fn connect(&self, port: u16) -> TcpStream {
        self.namespace
            .run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
            .expect("the proxy listens")
    }

    /// Its access log, when that is standard output.
    pub fn access_log(&self) -> String {
        self.proxy.stdout()
    }

    /// What it logged about itself.
    pub fn log(&self) -> String {
        self.proxy.stderr()
    }

    /// Waits until the access log has a line with `text`, and returns that line.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn logged(&self, text: &str) -> String {
        until(
            &format!("{text:?} in the access log"),
            crate::mesh::PATIENCE,
            || {
                let log = self.access_log();
                log.lines().find(|line| line.contains(text)).map(str::to_owned)
            },
        )
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Adds what comes to `came` until nothing did for `quiet`, and tells whether the stream is still `open` then, or `closed`.
///
/// # Panics
/// When `stream` is not a socket that can be waited for.
pub fn read_until_quiet(stream: &mut TcpStream, came: &mut Vec<u8>, quiet: Duration) -> &'static str {
    stream.set_read_timeout(Some(quiet)).expect("a socket");
    let mut piece = [0; 65_536];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return "closed",
            Ok(count) => came.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return "open",
            // Who sends on after he was told that it is over.
            Err(_) => return "closed",
        }
    }
}

/// The YAML of a listener on `port` of 127.0.0.1 that speaks HTTP. `manager` are fields of the connection manager, `routes` those of its
/// one virtual host, both in flow style without their braces. Its access log is standard output: the port, `:path`, code, flags and
/// details of each stream, and `id`, a format operator.
pub fn http_listener(port: u16, manager: &str, routes: &str, id: &str) -> String {
    let manager = manager.lines().map(|line| format!("          {line}\n"));
    let manager: String = manager.collect();
    format!(
        "  - name: l{port}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{port}
{manager}          access_log:
          - name: file
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/stdout
              log_format: {{ text_format_source: {{ inline_string: \"{port} %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% {id}\\n\" }} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - {{ name: all, domains: [\"*\"], routes: [{routes}] }}
"
    )
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.proxy.stderr();
            eprintln!("--- {:?}, last lines:", self.kind);
            log.lines()
                .rev()
                .take(20)
                .collect::<Vec<_>>()
                .iter()
                .rev()
                .for_each(|line| eprintln!("{line}"));
        }
    }
}
