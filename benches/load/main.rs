//! `outrigger-bench`: see `--help`, and docs/performance.md for what comes out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use outrigger_bench::cells::{self, Setup, Workload, counts, memory, mesh, scale, startup};
use outrigger_bench::interleave::Timing;
use outrigger_bench::machine;
use outrigger_bench::peer::Proxy;
use outrigger_bench::samples::{Run, Sample, from_csv, to_csv};
use outrigger_bench::{plot, report};

/// Measures outrigger beside Envoy, nginx and HAProxy on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything when nothing is named. Only a run of everything is written to the report, or what is measured
    /// again.
    cells: Vec<What>,
    /// Few and short slices: for a look, not for a figure.
    #[arg(long)]
    quick: bool,
    /// Which proxies, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [Name::Outrigger, Name::Envoy, Name::Nginx, Name::Haproxy])]
    proxies: Vec<Name>,
    /// Writes the report of a partial or quick run too, into this folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Puts what is measured in the place of its earlier figures in the report, which says so.
    #[arg(long, requires = "cells", conflicts_with_all = ["quick", "out", "render"])]
    again: bool,
    /// Makes the report and the drawing again from the samples on disk, and measures nothing.
    #[arg(long)]
    render: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Hop,
    Pair,
    Tcp,
    H2,
    Mesh,
    /// Ten thousand virtual hosts.
    Hosts,
    /// Ten thousand prefixes.
    Prefixes,
    Memory,
    Startup,
    /// A mesh of a thousand services.
    Scale,
    /// Instructions (valgrind) and system calls (strace) a request.
    Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Outrigger,
    Envoy,
    Nginx,
    Haproxy,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.proxy().name())
    }
}

impl Name {
    fn proxy(self) -> Proxy {
        match self {
            Self::Outrigger => Proxy::Outrigger,
            Self::Envoy => Proxy::Envoy,
            Self::Nginx => Proxy::Nginx,
            Self::Haproxy => Proxy::Haproxy,
        }
    }
}

impl What {
    fn workload(self) -> Option<Workload> {
        let name = self.to_possible_value()?;
        Workload::ALL
            .into_iter()
            .find(|workload| workload.name() == name.get_name())
    }
}

const FULL: Timing = Timing {
    passes: 12,
    slice: Duration::from_millis(2500),
    lead: Duration::from_millis(250),
    warm_up: Duration::from_secs(2),
};
const QUICK: Timing = Timing {
    passes: 4,
    slice: Duration::from_millis(1500),
    lead: Duration::from_millis(200),
    warm_up: Duration::from_millis(500),
};

fn main() -> ExitCode {
    // What panics says so once; the backtrace of a test harness helps nobody here.
    std::panic::set_hook(Box::new(|panic| eprintln!("outrigger-bench: {panic}")));
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let docs = arguments
        .out
        .clone()
        .unwrap_or_else(|| e2e::tools::repository().join("docs"));
    if arguments.render {
        return render(&docs);
    }
    let start = Instant::now();
    let timing = if arguments.quick { QUICK } else { FULL };
    let wanted: Vec<_> = arguments.proxies.iter().map(|name| name.proxy()).collect();
    let setup = Setup::new(&wanted, timing)?;
    let mut run = Run {
        machine: describe(&setup)?,
        command: command_line(),
        ..Run::default()
    };
    let mut samples = Vec::new();
    for what in What::value_variants()
        .iter()
        .filter(|what| arguments.asks(**what))
    {
        eprintln!(
            "outrigger-bench: {what:?} ({:.0} s so far)",
            start.elapsed().as_secs_f64()
        );
        measure(*what, &setup, arguments, &mut run, &mut samples)?;
    }
    let others = report::others(&run);
    println!("{others}");
    eprintln!("outrigger-bench: {:.0} s", start.elapsed().as_secs_f64());
    if arguments.again {
        let mut whole = earlier(&docs)?;
        whole.replace(run.clone());
        write(&docs, &whole, &samples)?;
    } else if arguments.is_whole() || arguments.out.is_some() {
        write(&docs, &run, &samples)?;
    }
    let failed: Vec<_> = run
        .cells
        .iter()
        .filter(|cell| cell.faults.iter().any(|fault| fault.starts_with("not measured")))
        .collect();
    anyhow::ensure!(
        failed.is_empty() && run.scale_fault.is_none(),
        "not measured: {} of {} workloads{}",
        failed.len(),
        run.cells.len(),
        if run.scale_fault.is_some() {
            ", and the mesh of a thousand services"
        } else {
            ""
        }
    );
    Ok(())
}

impl Arguments {
    fn asks(&self, what: What) -> bool {
        self.cells.is_empty() || self.cells.contains(&what)
    }

    fn is_whole(&self) -> bool {
        self.cells.is_empty() && !self.quick && self.proxies.len() == Name::value_variants().len()
    }
}

fn measure(
    what: What,
    setup: &Setup,
    arguments: &Arguments,
    run: &mut Run,
    samples: &mut Vec<(String, Vec<Sample>)>,
) -> anyhow::Result<()> {
    if let Some(workload) = what.workload() {
        let (cell, measured) = cells::run(setup, workload);
        println!("## {}\n\n{}", cell.title, report::cell(&cell, &measured));
        samples.push((cell.name.clone(), measured));
        run.cells.push(cell);
        return Ok(());
    }
    match what {
        What::Memory => {
            run.memory = memory::run(setup).context("memory")?;
            // Said in the mesh's own cell if it cannot run here.
            match cells::caught(|| mesh::memory(setup)) {
                Ok(rows) => run.memory.extend(rows),
                Err(error) => eprintln!("outrigger-bench: memory in the bill mesh: {error:#}"),
            }
        }
        What::Startup => {
            run.startup = startup::run(setup, if arguments.quick { 5 } else { 30 }).context("startup")?
        }
        What::Scale => {
            let extent = if arguments.quick {
                scale::Extent::QUICK
            } else {
                scale::Extent::FULL
            };
            match cells::caught(|| scale::run(setup, extent)) {
                Ok(rows) => run.scale = rows,
                Err(error) => run.scale_fault = Some(format!("{error:#}")),
            }
        }
        _ => run.counts = counts::run(setup, if arguments.quick { 500 } else { 1000 }).context("counts")?,
    }
    Ok(())
}

fn describe(setup: &Setup) -> anyhow::Result<Vec<(String, String)>> {
    let programs = &setup.place.programs;
    let named = programs
        .all()
        .map(|proxy| Ok((proxy.name(), programs.path(proxy)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows = machine::describe(setup.place.cores, &named);
    let Timing {
        passes,
        slice,
        lead,
        warm_up,
    } = setup.timing;
    rows.push((
        "slices".to_owned(),
        format!(
            "{passes} of {slice:?} for each proxy, {lead:?} before each and {warm_up:?} before all uncounted"
        ),
    ));
    Ok(rows)
}

/// Without the path of the program.
fn command_line() -> String {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let text = format!("make bench ARGS='{}'", arguments.join(" "));
    if arguments.is_empty() {
        "make bench".to_owned()
    } else {
        text
    }
}

fn write(docs: &Path, run: &Run, samples: &[(String, Vec<Sample>)]) -> anyhow::Result<()> {
    let folder = docs.join("performance");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (name, samples) in samples {
        std::fs::write(folder.join(format!("{name}.csv")), to_csv(samples))?;
    }
    std::fs::write(
        folder.join("run.json"),
        format!("{}\n", serde_json::to_string_pretty(run)?),
    )?;
    render(docs)
}

/// What was written last.
fn earlier(docs: &Path) -> anyhow::Result<Run> {
    let path = docs.join("performance/run.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn render(docs: &Path) -> anyhow::Result<()> {
    let folder = docs.join("performance");
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let run = earlier(docs)?;
    let mut samples = Vec::new();
    for cell in &run.cells {
        samples.push((
            cell.name.clone(),
            from_csv(&read(&format!("{}.csv", cell.name))?).context(cell.name.clone())?,
        ));
    }
    let of = |name: &str| {
        let found = samples.iter().find(|(known, _)| known == name);
        found.map(|(_, samples)| samples.clone()).unwrap_or_default()
    };
    std::fs::write(docs.join("performance.md"), report::document(&run, &of))?;
    std::fs::write(docs.join("performance.svg"), plot::draw(&run, &of)?)?;
    eprintln!("outrigger-bench: wrote {}", docs.join("performance.md").display());
    Ok(())
}
