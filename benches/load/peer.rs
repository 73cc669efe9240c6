//! The programs that are compared, and how each is told to do the same work.
//!
//! A [`Job`] says what is to be done; [`start`] writes the configuration that makes a program do it, and runs it with one
//! worker. outrigger and Envoy read the same document, but for Istio's own filters, which stock Envoy does not have:
//! outrigger runs with them.

mod envoy;
mod haproxy;
mod nginx;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use outrigger_demo::ca::{Authority, Identity, KeyCert};

use crate::affinity::Cores;
use crate::process::{Invocation, Running, free_address};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// The one that is built here.
    Outrigger,
    /// The one that it replaces.
    Envoy,
    /// Debian's.
    Nginx,
    /// Debian's.
    Haproxy,
}

impl Proxy {
    /// All, in the order of tables.
    pub const ALL: [Self; 4] = [Self::Outrigger, Self::Envoy, Self::Nginx, Self::Haproxy];

    /// As in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outrigger => "outrigger",
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether it can do this kind of work.
    pub fn can(self, kind: Kind) -> bool {
        // nginx speaks HTTP/2 to its clients only.
        !(self == Self::Nginx && kind == Kind::Http2)
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    found: Vec<(Proxy, PathBuf)>,
}

impl Programs {
    /// Looks for all of `wanted`.
    ///
    /// # Errors
    /// Names everything that is missing.
    pub fn find(wanted: &[Proxy]) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        let mut found = Vec::new();
        for proxy in wanted {
            match locate(*proxy) {
                Ok(path) => found.push((*proxy, path)),
                Err(hint) => missing.push(hint),
            }
        }
        if !missing.is_empty() {
            bail!("missing: {}", missing.join("; "));
        }
        Ok(Self { found })
    }

    /// Where a program is.
    ///
    /// # Errors
    /// When it was not looked for.
    pub fn path(&self, proxy: Proxy) -> anyhow::Result<&Path> {
        let entry = self.found.iter().find(|(known, _)| *known == proxy);
        entry
            .map(|(_, path)| path.as_path())
            .with_context(|| format!("{} was not asked for", proxy.name()))
    }

    /// Those that were found, in order.
    pub fn all(&self) -> impl Iterator<Item = Proxy> {
        self.found.iter().map(|(proxy, _)| *proxy)
    }
}

fn locate(proxy: Proxy) -> Result<PathBuf, String> {
    let root = e2e::tools::repository();
    let (variable, places, hint) = match proxy {
        Proxy::Outrigger => {
            let target =
                std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
            (
                "OUTRIGGER_BIN",
                vec![target.join("release/outrigger")],
                "outrigger (make build, or set OUTRIGGER_BIN)",
            )
        }
        Proxy::Envoy => (
            "ENVOY_BIN",
            vec![root.join("target/envoy-venv/envoy")],
            "Envoy 1.40 (make prepare, or set ENVOY_BIN)",
        ),
        Proxy::Nginx => (
            "NGINX_BIN",
            on_path("nginx"),
            "nginx (Debian packages nginx-light and libnginx-mod-stream)",
        ),
        Proxy::Haproxy => (
            "HAPROXY_BIN",
            on_path("haproxy"),
            "haproxy (Debian package haproxy)",
        ),
    };
    let places = std::env::var_os(variable).map_or(places, |path| vec![path.into()]);
    places
        .into_iter()
        .find(|place| place.is_file())
        .ok_or_else(|| hint.to_owned())
}

fn on_path(program: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(program))
        .collect()
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 on both sides.
    Http1,
    /// HTTP/2 on both sides, in the clear, with prior knowledge.
    Http2,
    /// Bytes.
    Tcp,
}

/// What one proxy has to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is spoken.
    pub kind: Kind,
    /// Where to forward to.
    pub upstream: SocketAddr,
    /// Whether it takes mutual TLS from downstream, or speaks it upstream.
    pub tls: Tls,
    /// Whether outrigger runs Istio's filters.
    pub with_istio_filters: bool,
    /// How large the route table is.
    pub table: Table,
    /// Its part, for samples and files.
    pub side: &'static str,
}

impl Job {
    /// In the clear, alone, with Istio's filters.
    pub fn plain(kind: Kind, upstream: SocketAddr) -> Self {
        Self {
            kind,
            upstream,
            tls: Tls::None,
            with_istio_filters: true,
            table: Table::One,
            side: "proxy",
        }
    }
}

/// The route table; requests take its last route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// One virtual host with one route.
    One,
    /// [`MANY`] virtual hosts with one route each.
    Hosts,
    /// One virtual host with [`MANY`] prefixes.
    Prefixes,
}

/// Entries of a large route table.
pub const MANY: usize = 10_000;

impl Table {
    /// Authority and path of a request.
    pub fn asks(self) -> (&'static str, &'static str) {
        match self {
            Self::One => ("backend.default.svc.cluster.local", "/"),
            Self::Hosts => ("service-9999.default.svc.cluster.local", "/"),
            Self::Prefixes => ("backend.default.svc.cluster.local", "/service-9999/"),
        }
    }
}

/// Which leg is mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Neither.
    None,
    /// From downstream: a server sidecar.
    Downstream,
    /// To upstream: a client sidecar.
    Upstream,
}

/// Certificates of both sides, as files.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The root that both trust.
    pub roots: PathBuf,
    /// Of the client sidecar.
    pub client: KeyFiles,
    /// Of the server sidecar.
    pub server: KeyFiles,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// Certificate chain, PEM.
    pub chain: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Both in one file.
    pub both: PathBuf,
}

/// Whom the server sidecar speaks for.
pub(crate) const SERVER_SPIFFE: &str = "spiffe://cluster.local/ns/default/sa/server";

impl Credentials {
    /// New ones, P-256, in `folder`.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let authority = Authority::new("outrigger bench").context("a root certificate")?;
        let roots = folder.join("roots.pem");
        fs::write(&roots, authority.root()).context("write certificates")?;
        let issue = |name: &str| {
            let issued = authority
                .issue(&Identity::new("default", name))
                .context("a certificate")?;
            KeyFiles::write(folder, name, &issued)
        };
        Ok(Self {
            roots,
            client: issue("client")?,
            server: issue("server")?,
        })
    }

    /// Those of the side that a proxy with this job is on.
    fn of(&self, tls: Tls) -> &KeyFiles {
        if tls == Tls::Downstream {
            &self.server
        } else {
            &self.client
        }
    }
}

impl KeyFiles {
    fn write(folder: &Path, name: &str, issued: &KeyCert) -> anyhow::Result<Self> {
        let path = |ending: &str| folder.join(format!("{name}.{ending}.pem"));
        let files = Self {
            chain: path("chain"),
            key: path("key"),
            both: path("both"),
        };
        fs::write(&files.chain, &issued.chain)?;
        fs::write(&files.key, &issued.key)?;
        fs::write(&files.both, format!("{}{}", issued.chain, issued.key))?;
        Ok(files)
    }
}

/// What every start has in common.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where programs are.
    pub programs: Programs,
    /// Who runs where.
    pub cores: Cores,
    /// For configurations and logs; in memory where the machine allows it.
    pub folder: PathBuf,
    /// For mutual TLS.
    pub credentials: Credentials,
}

/// Writes the configuration of `proxy` for `job`, under a name of its own.
///
/// # Errors
/// When it cannot be written, or there is no port.
pub fn prepare(place: &Place, proxy: Proxy, name: &str, job: &Job) -> anyhow::Result<Invocation> {
    let listens = free_address()?;
    let stem = format!("{name}-{}-{}", job.side, listens.port());
    let log = place.folder.join(format!("{stem}.log"));
    let credentials = &place.credentials;
    let (file, text, admin) = match proxy {
        Proxy::Outrigger | Proxy::Envoy => {
            let admin = free_address()?;
            let with_istio_filters = proxy == Proxy::Outrigger && job.with_istio_filters;
            let json = envoy::bootstrap(job, listens, admin, with_istio_filters, credentials);
            (format!("{stem}.json"), format!("{json:#}"), Some(admin))
        }
        Proxy::Nginx => (
            format!("{stem}.conf"),
            nginx::configuration(job, listens, &log, credentials)?,
            None,
        ),
        Proxy::Haproxy => (
            format!("{stem}.cfg"),
            haproxy::configuration(job, listens, credentials),
            None,
        ),
    };
    let file = place.folder.join(file);
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    let file = file.display().to_string();
    let arguments = match proxy {
        Proxy::Outrigger | Proxy::Envoy => envoy::arguments(&file),
        Proxy::Nginx => vec!["-c".to_owned(), file],
        Proxy::Haproxy => vec!["-db".to_owned(), "-f".to_owned(), file],
    };
    let arguments = arguments
        .into_iter()
        .filter(|argument| proxy == Proxy::Envoy || !argument.starts_with("--disable"));
    Ok(Invocation {
        side: job.side,
        program: place.programs.path(proxy)?.to_owned(),
        arguments: arguments.collect(),
        listens,
        admin,
        log,
    })
}

/// Starts `proxy` for `job`.
///
/// # Errors
/// As [`prepare`] and [`Running::start`].
pub fn start(place: &Place, proxy: Proxy, name: &str, job: &Job) -> anyhow::Result<Running> {
    Running::start(prepare(place, proxy, name, job)?, place.cores)
}
