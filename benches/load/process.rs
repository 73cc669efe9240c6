//! Processes of a measurement: on the core of the proxies, with their output in files, and gone when dropped.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::affinity::Cores;
use crate::system;

/// Longest wait until a program listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// How to start a program.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Which part it plays, as `client` or `server`.
    pub side: &'static str,
    /// The file.
    pub program: PathBuf,
    /// What follows it.
    pub arguments: Vec<String>,
    /// Where it listens for traffic.
    pub listens: SocketAddr,
    /// Where it serves counters, if it does.
    pub admin: Option<SocketAddr>,
    /// Where its access log goes: its standard output, or a file that it opens itself.
    pub log: PathBuf,
}

/// A running program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// How it was started.
    pub invocation: Invocation,
}

impl Running {
    /// Starts a program on the proxies' core and waits until it accepts connections.
    ///
    /// The program dies with the thread that started it, also when that one is killed.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen in time.
    pub fn start(invocation: Invocation, cores: Cores) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&invocation.program);
        let mut running = Self::spawn(command, invocation, cores)?;
        let start = Instant::now();
        while TcpStream::connect(running.invocation.listens).is_err() {
            running.check(start.elapsed())?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }

    /// Starts a program with nothing around it, and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_bare(invocation: Invocation, cores: Cores) -> anyhow::Result<Self> {
        let command = Command::new(&invocation.program);
        Self::spawn(command, invocation, cores)
    }

    fn spawn(mut command: Command, invocation: Invocation, cores: Cores) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(&invocation.log);
        let log = log.with_context(|| invocation.log.display().to_string())?;
        let errors = File::create(errors(&invocation.log)).context("a file for messages")?;
        command
            .args(&invocation.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let child = cores.on_proxy_core(|| {
            command
                .spawn()
                .with_context(|| format!("start {}", invocation.program.display()))
        })?;
        Ok(Self { child, invocation })
    }

    /// Fails when it has ended, or when it takes longer than anything here may take.
    ///
    /// # Errors
    /// With the last of what the program wrote.
    pub fn check(&mut self, waited: Duration) -> anyhow::Result<()> {
        let program = self.invocation.program.display().to_string();
        if let Some(status) = self.child.try_wait().context("ask for a child")? {
            bail!("{program} ended ({status}): {}", self.last_words());
        }
        if waited > PATIENCE {
            bail!(
                "{program} does not listen at {}: {}",
                self.invocation.listens,
                self.last_words()
            );
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(errors(&self.invocation.log)).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far, ns.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        system::cpu_ns(self.id()).with_context(|| self.last_words())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill()
            && error.kind() != ErrorKind::InvalidInput
        {
            eprintln!("kill {}: {error}", self.child.id());
        }
        // Nothing to do about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}

fn errors(log: &Path) -> PathBuf {
    log.with_extension("err")
}

/// A port of 127.0.0.1 that nobody listens at.
///
/// # Errors
/// When the system has none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?)
}
