//! The programs that `outrigger demo` starts: each dies with the demo, however that ends.
//!
//! A child asks the kernel for a signal at the death of its parent (PR_SET_PDEATHSIG); only a process itself can ask,
//! so each child is this program first. The wish survives the exec that makes it a sidecar (prctl(2)).

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::app;

/// What a child does with its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Becomes this program with these arguments.
    Sidecar(Vec<OsString>),
    /// Serves [`app`].
    App {
        /// What it says it is.
        version: String,
        /// Where.
        address: SocketAddr,
    },
}

/// Runs as a child of process `parent`; returns only with an error.
///
/// # Errors
/// When the parent is gone already, or the role cannot be played.
pub fn run(parent: i32, role: Role) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have died before the line above; then nobody sends the signal.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return io::Error::other("the demo that started this is gone");
    }
    match role {
        Role::Sidecar(arguments) => match std::env::current_exe() {
            Ok(program) => Command::new(program).arg0("outrigger").args(arguments).exec(),
            Err(error) => error,
        },
        Role::App { version, address } => serve(&version, address)
            .err()
            .unwrap_or_else(|| io::Error::other("ended")),
    }
}

fn serve(version: &str, address: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        app::serve(listener, version).await
    })
}
