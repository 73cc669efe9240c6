//! `outrigger demo`: three workloads of a mesh on loopback, traffic between them, and a file that changes their split.
//!
//! Owns what runs where, in which order it comes up, and that nothing is left when it ends. The configuration is what a
//! real istiod wrote (`captures`), with the few edits that a shared loopback needs (`edits`); sidecars and applications
//! are children of this process (`sidecar`), control plane, certificates and front's application are inside it.
//! docs/demo.md is for those who run it.

mod captures;
mod edits;
mod error;
mod evidence;
mod file;
mod follow;
mod places;
mod report;
mod served;
mod setup;
mod sidecar;
mod state;
mod tally;
mod traffic;
mod watch;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::ca::Authority;
use crate::control_plane::Named;
use crate::http1::{Kind, Reader};

use captures::{CAPTURES, FRONT};
pub use error::DemoError;
use error::broken;
use evidence::Evidence;
use places::Places;
use report::{Facts, Report, View};
use served::Served;
use setup::{config, folder, prepare, serve};
use sidecar::Part;
use state::Shared;
use traffic::Front;
use watch::Watch;

/// Longest way to the first request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often notes are printed.
const NOTES: Duration = Duration::from_millis(100);

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The file with bill-service's resources; without, one is written and removed at the end.
    pub config: Option<PathBuf>,
    /// How long to send requests; without, until a signal.
    pub duration: Option<Duration>,
    /// Print JSON.
    pub json: bool,
    /// First argument that makes this program a child of the demo.
    pub child_command: &'static str,
}

/// Runs the demo on this thread until its time is over, a signal comes, or nobody reads what it prints.
///
/// # Errors
/// [`DemoError`]; nothing is left behind then either.
pub fn run(options: &Options) -> Result<(), DemoError> {
    // Children ask for a signal at the death of the thread that started them, so everything starts on this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken("start the demo"))?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(broken("wait for signals"))?;
        let (mut demo, work) = Demo::start(options)?;
        let ran = tokio::select! {
            ran = demo.come_up_and_run(work, options.duration) => ran,
            () = signals.any() => Ok(()),
        };
        demo.end(ran.is_ok()).await;
        ran
    })
}

/// What goes on once the mesh is up.
struct Work {
    front: Front,
    served: Served,
    watch: Watch,
}

struct Demo {
    facts: Facts,
    shared: Shared,
    report: Report,
    /// When the first request was sent.
    began: Option<Instant>,
    parts: JoinSet<()>,
    stop: tokio::sync::watch::Sender<bool>,
    // Removed when everything that uses it is gone.
    folder: TempDir,
}

impl Demo {
    /// Starts every process.
    fn start(options: &Options) -> Result<(Self, Work), DemoError> {
        let folder = folder()?;
        let (file, text) = config(options.config.as_deref(), folder.path())?;
        let captured = FRONT.snapshot().map_err(broken("read the capture of front"))?;
        let known: Vec<Named> = captured
            .types()
            .flat_map(|kind| captured.all(kind))
            .cloned()
            .collect();
        let resources = file::parse(&file.display().to_string(), &text, &known)?;
        let free = Places::wanted().free();
        let (places, replaced) = free.map_err(|(address, source)| DemoError::Listen { address, source })?;
        let facts = Facts {
            file: file.clone(),
            admin: places.pods.iter().map(|pod| (pod.name, pod.admin)).collect(),
            bill_service: places.bill_service(),
            replaced,
        };
        let shared = Shared::default();
        let served = serve(&places, &resources)?;
        shared.lock().weights = served.weights();
        let evidence = Evidence::default();
        let work = Work {
            front: Front::new(places.bill_service(), evidence.clone(), shared.clone()),
            served,
            watch: Watch::new(file, text),
        };
        let mut demo = Self {
            facts,
            shared,
            report: Report::new(options.json),
            began: None,
            parts: JoinSet::new(),
            stop: tokio::sync::watch::Sender::new(false),
            folder,
        };
        for part in demo.parts(&places, &evidence, options.child_command)? {
            demo.parts.spawn(part.keep(demo.stop.subscribe()));
        }
        Ok((demo, work))
    }

    /// Every process, with the files that it needs.
    fn parts(&self, places: &Places, evidence: &Evidence, child: &str) -> Result<Vec<Part>, DemoError> {
        let program = std::env::current_exe().map_err(broken("find this program"))?;
        let authority = Authority::new("outrigger demo").map_err(broken("make a root certificate"))?;
        let folder = self.folder.path();
        let mut parts = Vec::new();
        for ((capture, version), pod) in CAPTURES.iter().zip(&places.pods) {
            let bootstrap = prepare(folder, places, pod, capture, &authority)?;
            let interval = sidecar::LOG_INTERVAL.as_millis().to_string();
            let flags = [
                "--concurrency",
                "1",
                "-l",
                "warning",
                "--file-flush-interval-msec",
                &interval,
            ];
            let mut sidecar: Vec<OsString> = vec!["-c".into(), bootstrap.into()];
            sidecar.extend(flags.map(OsString::from));
            parts.push((pod.name, "sidecar", sidecar));
            parts.push((pod.name, "app", vec![version.into(), pod.app.to_string().into()]));
        }
        let parent = std::process::id().to_string();
        let part = |(row, (pod, role, arguments)): (usize, (&'static str, &str, Vec<OsString>))| Part {
            row,
            name: format!("{pod} {role}"),
            pod,
            program: program.clone(),
            arguments: [child, &parent, role]
                .map(OsString::from)
                .into_iter()
                .chain(arguments)
                .collect(),
            folder: folder.to_owned(),
            evidence: evidence.clone(),
            shared: self.shared.clone(),
        };
        Ok(parts.into_iter().enumerate().map(part).collect())
    }

    async fn come_up_and_run(&mut self, work: Work, duration: Option<Duration>) -> Result<(), DemoError> {
        self.ready().await?;
        let began = Instant::now();
        self.began = Some(began);
        if self.report.begin(&self.facts).is_err() {
            return Ok(());
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(work.front.run());
        tasks.spawn(follow::run(work.served, work.watch, self.shared.clone()));
        let shown = self.show(began);
        match duration {
            // It is over when the time is, or when nobody reads.
            Some(duration) => drop(tokio::time::timeout(duration, shown).await),
            None => shown.await,
        }
        Ok(())
    }

    /// Waits until every sidecar says that it serves what the control plane has.
    async fn ready(&self) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        for (name, admin) in &self.facts.admin {
            while !is_ready(*admin).await {
                if let Some(ended) = self.shared.ended() {
                    return Err(DemoError::NotReady(ended));
                }
                if Instant::now() > deadline {
                    let waited = PATIENCE.as_secs();
                    return Err(DemoError::NotReady(format!(
                        "the sidecar of {name} is not ready after {waited} s"
                    )));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Prints until nobody reads.
    async fn show(&mut self, began: Instant) {
        let mut clock = tokio::time::interval(NOTES);
        let mut seconds = 0;
        loop {
            clock.tick().await;
            let is_full = began.elapsed().as_secs() > seconds;
            if is_full {
                seconds = began.elapsed().as_secs();
                self.shared.lock().tally.roll();
            }
            let notes = self.shared.notes();
            if !is_full && notes.is_empty() {
                continue;
            }
            let view = View::of(&self.shared, began);
            let said = self.report.notes(notes, &view);
            if said
                .and_then(|()| {
                    if is_full {
                        self.report.second(&view)
                    } else {
                        Ok(())
                    }
                })
                .is_err()
            {
                return;
            }
        }
    }

    /// Ends every process and waits until it is gone; then says what there was.
    async fn end(mut self, in_order: bool) {
        let view = self.began.map(|began| View::of(&self.shared, began));
        self.stop.send_replace(true);
        while self.parts.join_next().await.is_some() {}
        if let (true, Some(view)) = (in_order, view) {
            let notes = self.shared.notes();
            // Nobody may read any more; that is no failure of the demo.
            let _ = self
                .report
                .notes(notes, &view)
                .and_then(|()| self.report.end(&view));
        }
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(admin).await?;
        let request = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        Reader::new(stream, Kind::Response).head().await
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
    matches!(answer, Ok(Ok(Some(head))) if head.status() == 200)
}

/// What ends the demo from outside: Ctrl-C, `kill`, and the terminal going away.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
