//! Moves the program into a pod's network namespace, for a CNI plugin that runs on the node.
//!
//! Called before anything else, while there is one thread. What the iptables programs share with the whole node
//! is kept from them: their lock, so that the pod need not wait for the node's own rules, and the user database's
//! configuration, which may name libraries that this image lacks.
//! Source: Istio `tools/istio-iptables/pkg/dependencies/implementation_linux.go`; setns(2).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgid, setuid};

const LOCK: &str = "/run/xtables.lock";
const NAME_SERVICES: &str = "/etc/nsswitch.conf";

/// The namespace cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("--network-namespace: bad value {:?}: {source}", .path.display().to_string())]
    Open { path: PathBuf, source: io::Error },
    #[error("enter the network namespace {}: {source}; it takes CAP_SYS_ADMIN", .path.display())]
    Enter { path: PathBuf, source: Errno },
    #[error("hide {file} from the iptables programs: {source}; it takes CAP_SYS_ADMIN")]
    Hide { file: &'static str, source: Errno },
}

impl NamespaceError {
    /// Whether the path is to blame, and not the kernel.
    pub fn is_bad_value(&self) -> bool {
        match self {
            NamespaceError::Open { .. } => true,
            // setns(2): the file is no namespace of this kind.
            NamespaceError::Enter { source, .. } => *source == Errno::EINVAL,
            NamespaceError::Hide { .. } => false,
        }
    }
}

/// Enters the network namespace at `path`, and the user namespace that owns it if that is another one.
///
/// # Errors
/// The path is no namespace; the kernel does not let this program in.
pub fn enter(path: &Path) -> Result<(), NamespaceError> {
    let file = File::open(path).map_err(|source| NamespaceError::Open {
        path: path.to_owned(),
        source,
    })?;
    let blame = |source| NamespaceError::Enter {
        path: path.to_owned(),
        source,
    };
    // Owner rules can be written by the owning user namespace only (net/netfilter/xt_owner.c).
    if let Some(users) = foreign_users(&file) {
        setns(users, CloneFlags::CLONE_NEWUSER).map_err(blame)?;
        // Whoever has no number there keeps its capabilities only until it starts a program.
        setgid(Gid::from_raw(0)).map_err(blame)?;
        setuid(Uid::from_raw(0)).map_err(blame)?;
    }
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(blame)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(blame)?;
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).map_err(blame)?;
    // The namespace's own file as lock: programs of the same pod still wait for each other.
    let _ = OpenOptions::new().create(true).append(true).open(LOCK);
    hide(path, LOCK)?;
    hide(Path::new("/dev/null"), NAME_SERVICES)
}

fn hide(by: &Path, file: &'static str) -> Result<(), NamespaceError> {
    if !Path::new(file).exists() {
        return Ok(());
    }
    let nothing: Option<&str> = None;
    mount(Some(by), file, nothing, MsFlags::MS_BIND, nothing)
        .map_err(|source| NamespaceError::Hide { file, source })
}

/// The user namespace of a process that lives in `network`, if it is not this program's (`hostUsers: false`).
fn foreign_users(network: &File) -> Option<File> {
    let wanted = network.metadata().ok()?;
    let own = fs::metadata("/proc/self/ns/user").ok()?;
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let folder = process.path().join("ns");
        let Ok(found) = fs::metadata(folder.join("net")) else {
            continue;
        };
        if same(&found, &wanted) {
            let users = File::open(folder.join("user")).ok()?;
            let is_own = same(&users.metadata().ok()?, &own);
            return (!is_own).then_some(users);
        }
    }
    None
}
