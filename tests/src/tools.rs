//! Finds the programs that the tests run, and says plainly what is missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use tempfile::TempDir;

/// The user that a proxy runs as; Istio's iptables rules know it.
pub const PROXY_UID: u32 = 1337;
/// The user that an application runs as.
pub const APP_UID: u32 = 1000;

/// Programs from Debian packages, and the package of each.
const SYSTEM: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("iptables-restore", "iptables"),
    ("ip6tables-restore", "iptables"),
    ("setpriv", "util-linux"),
    ("tcpdump", "tcpdump"),
    ("curl", "curl"),
];

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is a folder of the repository")
        .to_owned()
}

/// Captures and recordings.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

/// Fails the test, naming everything that is missing, unless meshes can be built here.
pub fn require() {
    static MISSING: LazyLock<Vec<String>> = LazyLock::new(missing);
    assert!(
        MISSING.is_empty(),
        "this test cannot run here:\n  {}",
        MISSING.join("\n  ")
    );
}

fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("not root: network namespaces, and processes of uid 1337 and 1000, need it".to_owned());
    }
    let packages: BTreeSet<&str> = SYSTEM
        .iter()
        .filter(|(program, _)| on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.extend(
        packages
            .iter()
            .map(|package| format!("Debian package {package} is not installed")),
    );
    missing
}

/// The proxy under test.
pub fn outrigger() -> PathBuf {
    built("outrigger", "OUTRIGGER_BIN")
}

/// The program that programs the nat table.
pub fn iptables_init() -> PathBuf {
    built("iptables-init", "IPTABLES_INIT_BIN")
}

/// Envoy: `$ENVOY_BIN`, or what `make prepare` put into the virtual environment under `target/`.
pub fn envoy() -> PathBuf {
    let path = std::env::var_os("ENVOY_BIN").map(PathBuf::from).or_else(|| {
        let versions = fs::read_dir(repository().join("target/envoy-venv/lib")).ok()?;
        let binaries = versions
            .flatten()
            .map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
        binaries.into_iter().find(|path| path.is_file())
    });
    let path = path
        .expect("this test cannot run here: Envoy is missing, `make prepare` installs it; or set ENVOY_BIN");
    reachable(&path)
}

/// A program of this package.
pub fn own(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test
        .ancestors()
        .nth(2)
        .expect("tests run from target/PROFILE/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "this test cannot run here: {} is missing",
        path.display()
    );
    reachable(&path)
}

fn built(name: &str, variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| release(name), PathBuf::from);
    assert!(
        path.is_file(),
        "this test cannot run here: {} is missing; run cargo build --release --workspace, or set {variable}",
        path.display()
    );
    reachable(&path)
}

fn release(name: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    target.join("release").join(name)
}

/// The path itself, or that of a copy when the users of the tests may not go there.
fn reachable(path: &Path) -> PathBuf {
    static COPIES: LazyLock<Mutex<Option<TempDir>>> = LazyLock::new(Mutex::default);
    let id = APP_UID.to_string();
    let may = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "test", "-x"])
        .arg(path)
        .stderr(Stdio::null())
        .status();
    if may.is_ok_and(|status| status.success()) {
        return path.to_owned();
    }
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = copies.get_or_insert_with(|| open_folder("outrigger-e2e-bin-"));
    let copy = folder
        .path()
        .join(path.file_name().expect("a program has a name"));
    if !copy.exists() {
        fs::copy(path, &copy).unwrap_or_else(|error| panic!("copy {}: {error}", path.display()));
    }
    copy
}

/// A temporary folder that every user may enter.
pub fn open_folder(prefix: &str) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .expect("a temporary folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("the folder is ours");
    folder
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not on an ordinary user's PATH, but where Debian keeps ip and iptables.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
