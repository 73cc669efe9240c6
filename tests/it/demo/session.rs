//! A running `outrigger demo --json`, as an ordinary user, read as it prints.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e::process::until;
use e2e::tools::{self, APP_UID};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest wait for anything that takes a moment.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The demo's command, as an ordinary user also when the tests are root.
pub(super) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::outrigger());
    command
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        command.uid(APP_UID).gid(APP_UID);
    }
    command
}

/// An object that the demo printed, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Printed {
    pub(super) at: Instant,
    pub(super) object: Value,
}

/// The demo. Killed when dropped.
pub(super) struct Session {
    child: Child,
    printed: Arc<Mutex<Vec<Printed>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub(super) start: Value,
}

impl Session {
    /// Starts `outrigger demo --json` with more arguments, and waits until requests are sent.
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut child = command(&[&["--json"], arguments].concat())
            .stderr(Stdio::inherit())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let printed: Arc<Mutex<Vec<Printed>>> = Arc::default();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let sink = Arc::clone(&printed);
        let reader = std::thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.expect("UTF-8");
                let object = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                let at = Instant::now();
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Printed { at, object });
            }
        });
        let mut session = Self {
            child,
            printed,
            reader: Some(reader),
            start: Value::Null,
        };
        session.start = session
            .wait("the first object", |object| object["type"] == "start")
            .object;
        session
    }

    /// Everything printed so far.
    pub(super) fn printed(&self) -> Vec<Printed> {
        self.printed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The objects of full seconds.
    pub(super) fn seconds(&self) -> Vec<Printed> {
        let mut printed = self.printed();
        printed.retain(|it| it.object["type"] == "second");
        printed
    }

    /// Waits for an object of which `is_it` holds.
    pub(super) fn wait(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Printed {
        until(what, PATIENCE, || {
            self.printed().into_iter().find(|it| is_it(&it.object))
        })
    }

    /// Waits for an event whose text has all of `parts`, printed after `since`.
    pub(super) fn event(&self, since: Instant, kind: &str, parts: &[&str]) -> String {
        until(&format!("event {kind} {parts:?}"), PATIENCE, || {
            let printed = self.printed().into_iter().filter(|it| it.at > since);
            let mut events =
                printed.flat_map(|it| it.object["events"].as_array().cloned().unwrap_or_default());
            let event = events.find(|event| {
                let text = event["text"].as_str().unwrap_or_default();
                event["event"] == kind && parts.iter().all(|part| text.contains(part))
            })?;
            event["text"].as_str().map(str::to_owned)
        })
    }

    /// The watched file.
    pub(super) fn file(&self) -> PathBuf {
        self.start["file"].as_str().expect("a path").into()
    }

    /// Replaces text in the watched file, in place.
    pub(super) fn edit(&self, replacements: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.file()).expect("the file");
        for (from, to) in replacements {
            assert!(text.contains(from), "{from:?} stands in the file");
            text = text.replacen(from, to, 1);
        }
        fs::write(self.file(), text).expect("the file can be written");
    }

    /// Ids of the running children, by name.
    pub(super) fn processes(&self) -> BTreeMap<String, i32> {
        let last = self.seconds().pop().map(|it| it.object).unwrap_or_default();
        let processes = last["processes"].as_array().cloned().unwrap_or_default();
        let pid = |it: &Value| i32::try_from(it["pid"].as_i64()?).ok();
        processes
            .iter()
            .filter_map(|it| Some((it["name"].as_str()?.to_owned(), pid(it)?)))
            .collect()
    }

    /// Sends a signal to the demo itself.
    pub(super) fn signal(&self, signal: Signal) {
        send(i32::try_from(self.child.id()).expect("an id"), signal);
    }

    /// The id of the demo itself.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, and for the last of what it printed.
    pub(super) fn end(&mut self) -> ExitStatus {
        let ended = until("the end of the demo", PATIENCE, || {
            self.child.try_wait().expect("our child")
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("every line is an object");
        }
        ended
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// Whether a process is there; one that has ended and waits to be collected is not.
pub(super) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}
