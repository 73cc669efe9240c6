//! One or two proxies of one kind in a row, on static configuration, as the subject of a measurement.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;

use super::{CONNECTIONS, H2_SHAPE, counters};
use crate::backend::{self, Backend, Manner};
use crate::client::{Client, Speech, connect};
use crate::figures::quantile;
use crate::h2;
use crate::interleave::{Load, Subject};
use crate::peer::{self, Job, Kind, Place, Proxy, Table, Tls};
use crate::process::Running;
use crate::samples::Latency;
use crate::system;

/// What load and backend speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
    Echo,
}

/// Of either kind.
pub(super) enum AnyBackend {
    Plain(Backend),
    Http2(h2::Backend),
}

impl AnyBackend {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Plain(backend) => backend.address,
            Self::Http2(backend) => backend.address,
        }
    }
}

impl Speaks {
    pub(super) fn backend(self, core: usize) -> anyhow::Result<AnyBackend> {
        Ok(match self {
            Self::Http1 => AnyBackend::Plain(Backend::local(Manner::Http1, core)?),
            Self::Echo => AnyBackend::Plain(Backend::local(Manner::Echo, core)?),
            Self::Http2 => AnyBackend::Http2(h2::Backend::local(core)?),
        })
    }
}

/// Proxies of one kind, the one that the load speaks to last.
pub(super) struct Chain {
    name: String,
    proxy: Proxy,
    speaks: Speaks,
    table: Table,
    running: Vec<Running>,
}

impl Chain {
    /// Starts a proxy for each of `sides`, each forwarding to the one before it, the first to `upstream`.
    pub(super) fn start(
        place: &Place,
        proxy: Proxy,
        name: &str,
        kind: Kind,
        sides: &[Tls],
        upstream: SocketAddr,
        (speaks, table): (Speaks, Table),
    ) -> anyhow::Result<Self> {
        let (mut running, mut next): (Vec<Running>, _) = (Vec::new(), upstream);
        for tls in sides {
            let side = match tls {
                Tls::None => "proxy",
                Tls::Downstream => "server",
                Tls::Upstream => "client",
            };
            let job = Job {
                tls: *tls,
                table,
                side,
                ..Job::plain(kind, next)
            };
            let started = peer::start(place, proxy, name, &job)?;
            next = started.invocation.listens;
            running.push(started);
        }
        Ok(Self {
            name: name.to_owned(),
            proxy,
            speaks,
            table,
            running,
        })
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let last = self
            .running
            .last()
            .ok_or_else(|| anyhow::anyhow!("a chain of no proxies"))?;
        Ok(last.invocation.listens)
    }

    fn client(&self) -> anyhow::Result<Client> {
        let speech = match self.speaks {
            Speaks::Echo => Speech::Echo(backend::body()),
            _ => {
                let (authority, path) = self.table.asks();
                Speech::get(authority, path, backend::body())
            }
        };
        Client::new(connect(self.address()?, CONNECTIONS)?, speech)
    }

    pub(super) fn commands(&self) -> impl Iterator<Item = String> {
        self.running.iter().map(|running| {
            let program = running
                .invocation
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let arguments = running
                .invocation
                .arguments
                .iter()
                .map(|argument| shortened(argument));
            format!(
                "{}: {program} {}",
                self.name,
                arguments.collect::<Vec<_>>().join(" ")
            )
        })
    }

    /// Counters that say that something else was measured than requests that succeed.
    pub(super) fn faults(&self) -> Vec<String> {
        let admins = self.running.iter().filter_map(|running| running.invocation.admin);
        admins
            .flat_map(|admin| counters::faults(&self.name, admin))
            .collect()
    }

    pub(super) fn latency(&self, rate: f64, duration: Duration) -> anyhow::Result<Latency> {
        let mut client = self.client()?;
        client.run(Duration::from_millis(200))?;
        let latencies = client.run_paced(Duration::from_secs_f64(1.0 / rate), duration)?;
        for running in &self.running {
            empty(running)?;
        }
        let micros: Vec<f64> = latencies
            .iter()
            .map(|latency| latency.as_secs_f64() * 1e6)
            .collect();
        Ok(Latency {
            proxy: self.name.clone(),
            rate,
            p50_us: quantile(&micros, 0.5),
            p99_us: quantile(&micros, 0.99),
        })
    }
}

/// Without the folder, which is another one in each run.
fn shortened(argument: &str) -> String {
    argument.rsplit('/').next().unwrap_or(argument).to_owned()
}

fn empty(running: &Running) -> anyhow::Result<()> {
    // All append, so what comes next begins at the new end.
    File::options()
        .write(true)
        .open(&running.invocation.log)?
        .set_len(0)?;
    Ok(())
}

impl Subject for &mut Chain {
    fn name(&self) -> &str {
        &self.name
    }

    fn cpu_ns(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        self.running
            .iter()
            .map(|running| Ok((running.invocation.side, running.cpu_ns()?)))
            .collect()
    }

    fn load(&self) -> anyhow::Result<Box<dyn Load>> {
        if self.speaks == Speaks::Http2 {
            let (connections, streams) = H2_SHAPE;
            return Ok(Box::new(h2::Client::start(
                self.address()?,
                connections,
                streams,
            )?));
        }
        Ok(Box::new(self.client()?))
    }

    fn after_slice(&mut self, requests: u64) -> anyhow::Result<()> {
        for running in &self.running {
            let lines = system::lines(&running.invocation.log);
            // Some are still in a buffer: of 1 s, or of 64 KB.
            let expected = if self.speaks == Speaks::Echo {
                0
            } else {
                requests / 4
            };
            ensure!(
                lines >= expected,
                "{} requests, but {lines} lines in the access log of {}",
                requests,
                self.proxy.name()
            );
            empty(running)?;
        }
        Ok(())
    }
}

impl Load for Client {
    fn run(&mut self, duration: Duration) -> anyhow::Result<u64> {
        Self::run(self, duration)
    }
}

impl Load for h2::Client {
    fn run(&mut self, duration: Duration) -> anyhow::Result<u64> {
        Self::run(self, duration)
    }
}
