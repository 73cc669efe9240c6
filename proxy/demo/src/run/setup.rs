//! What the processes need before they start: a directory with the file to edit, bootstraps and sockets, and a control
//! plane that listens.

use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::captures::{Capture, FRONT};
use super::edits::Edits;
use super::error::{DemoError, MAX_SOCKET_PATH, broken};
use super::places::{Places, Pod};
use super::served::Served;
use super::{file, watch};
use crate::bootstrap::Bootstrap;
use crate::ca::{Authority, Identity};
use crate::control_plane::{ControlPlane, Named};
use crate::sds::{SecretServer, Secrets};

const FILE: &str = "bill-service.yaml";

/// The file to watch, and its text.
pub(super) fn config(given: Option<&Path>, folder: &Path) -> Result<(PathBuf, Vec<u8>), DemoError> {
    let Some(path) = given else {
        let snapshot = FRONT.snapshot().map_err(broken("read the capture of front"))?;
        let text = file::write(&snapshot)?.into_bytes();
        let path = folder.join(FILE);
        write(&path, &text)?;
        return Ok((path, text));
    };
    let text = watch::read(path).map_err(|source| DemoError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok((path.to_owned(), text))
}

pub(super) fn serve(places: &Places, resources: &[Named]) -> Result<Served, DemoError> {
    let control = ControlPlane::new();
    let served = Served::new(control.clone(), places, resources).map_err(broken("read the captures"))?;
    let listening = TcpListener::bind(places.xds).and_then(|listener| control.listen(listener));
    listening.map_err(|source| DemoError::Listen {
        address: places.xds,
        source,
    })?;
    Ok(served)
}

/// Serves the secrets of a workload and writes its bootstrap: the path of that.
pub(super) fn prepare(
    folder: &Path,
    places: &Places,
    pod: &Pod,
    capture: &Capture,
    authority: &Authority,
) -> Result<PathBuf, DemoError> {
    let mut node = capture.node().map_err(broken("read the node of a capture"))?;
    Edits::new(places, pod).node(&mut node);
    let metadata = |key: &str| node["metadata"][key].as_str().unwrap_or_default().to_owned();
    let identity = Identity::new(&metadata("NAMESPACE"), &metadata("SERVICE_ACCOUNT"));
    let workload = authority.issue(&identity).map_err(broken("sign a certificate"))?;
    let secrets = SecretServer::new(Secrets {
        workload: Some(workload),
        roots: authority.root(),
    });
    let socket = folder.join(format!("{}.sock", pod.name));
    let length = socket.as_os_str().as_bytes().len();
    if length > MAX_SOCKET_PATH {
        return Err(DemoError::LongPath { path: socket, length });
    }
    secrets.listen(&socket).map_err(|source| DemoError::Write {
        path: socket.clone(),
        source,
    })?;
    let bootstrap = Bootstrap {
        node,
        xds: places.xds,
        sds: socket,
        admin: pod.admin,
    };
    let path = folder.join(format!("{}-bootstrap.yaml", pod.name));
    write(&path, bootstrap.yaml().as_bytes())?;
    Ok(path)
}

/// A directory that only this user can enter.
pub(super) fn folder() -> Result<TempDir, DemoError> {
    let mine = fs::Permissions::from_mode(0o700);
    let made = tempfile::Builder::new()
        .prefix("outrigger-demo-")
        .permissions(mine)
        .tempdir();
    made.map_err(|source| DemoError::Folder {
        folder: std::env::temp_dir(),
        source,
    })
}

fn write(path: &Path, text: &[u8]) -> Result<(), DemoError> {
    fs::write(path, text).map_err(|source| DemoError::Write {
        path: path.to_owned(),
        source,
    })
}
