//! From `exec` to the first accepted connection, and to the first answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Setup;
use crate::backend::{Backend, Manner};
use crate::peer::{self, Job, Kind};
use crate::process::Running;
use crate::samples::StartRow;

/// Starts every program `starts` times, in turn, each on the configuration of the hop as an Istio bootstrap would have it:
/// without Istio's filters, which come later, by xDS.
///
/// # Errors
/// When one does not start.
pub fn run(setup: &Setup, starts: u32) -> anyhow::Result<Vec<StartRow>> {
    let backend = Backend::local(Manner::Http1, setup.place.cores.load)?;
    let programs: Vec<_> = setup.place.programs.all().collect();
    let row = |name: &str| StartRow {
        proxy: name.to_owned(),
        accept_ms: Vec::new(),
        answer_ms: Vec::new(),
    };
    let mut rows: Vec<_> = programs.iter().map(|proxy| row(proxy.name())).collect();
    let job = Job {
        with_istio_filters: false,
        ..Job::plain(Kind::Http1, backend.address)
    };
    for _ in 0..starts {
        for (proxy, row) in programs.iter().zip(&mut rows) {
            let invocation = peer::prepare(&setup.place, *proxy, proxy.name(), &job)?;
            let start = Instant::now();
            let mut running = Running::start_bare(invocation, setup.place.cores)?;
            let stream = loop {
                // Load and proxy have a core each, so asking all the time takes nothing from the start.
                match TcpStream::connect(running.invocation.listens) {
                    Ok(stream) => break stream,
                    Err(_) => running.check(start.elapsed())?,
                }
            };
            row.accept_ms.push(start.elapsed().as_secs_f64() * 1e3);
            answer(stream)?;
            row.answer_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(rows)
}

fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: backend\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    anyhow::ensure!(
        &status == b"HTTP/1.1 200",
        "first answer: {}",
        String::from_utf8_lossy(&status)
    );
    Ok(())
}
