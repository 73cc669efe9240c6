//! What keeps the demo from running, in words for whoever started it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use outrigger_model::document::DocumentError;

/// Longest path of a Unix socket (unix(7)).
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Nowhere to put the files.
    #[error("cannot make a directory in {folder}: {source}; set TMPDIR to one that you may write to", folder = folder.display())]
    Folder {
        /// Where.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file in that directory.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The name of a socket has no room.
    #[error("the path of a socket would be {length} bytes long, {MAX_SOCKET_PATH} are possible: {path}; set TMPDIR to a shorter directory", path = path.display())]
    LongPath {
        /// Its path.
        path: PathBuf,
        /// How long.
        length: usize,
    },
    /// The user's file.
    #[error("cannot read {path}: {source}; without --config the demo writes a file to begin with", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A mistake in that file.
    #[error(transparent)]
    Config(#[from] DocumentError),
    /// A loopback address that nothing can listen on.
    #[error("cannot listen on {address}: {source}; the demo needs the addresses 127.0.0.0/8")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A sidecar that ended, or did not become ready.
    #[error("the mesh did not come up: {0}")]
    NotReady(String),
    /// Something that only a broken build or machine shows.
    #[error("{what}: {reason}")]
    Broken {
        /// What was done.
        what: &'static str,
        /// What came of it.
        reason: String,
    },
}

/// For what cannot happen in a sound build on a sound machine.
pub(super) fn broken<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> DemoError {
    move |error| DemoError::Broken {
        what,
        reason: error.to_string(),
    }
}
