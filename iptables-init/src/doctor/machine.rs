//! Files of the machine that say what it is: `/proc`, `/sys`, `/lib/modules`.
//!
//! Read-only, below a root that tests can choose. A file that cannot be read is `None`, never a guess.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the files are.
pub(crate) struct Machine {
    root: PathBuf,
}

/// What is known of one kernel module without asking the kernel to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    Loaded,
    BuiltIn,
    /// A file that `modprobe` would find.
    OnDisk,
    /// Neither loaded nor among the files of this kernel.
    Absent,
    /// Not loaded; the files are out of sight (most containers).
    NotLoaded,
    /// The kernel has no modules at all (no `/proc/modules`): what is not built in cannot come.
    NoModules,
    /// The kernel just did what takes this module.
    Proven,
}

impl Module {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Module::Loaded => "loaded",
            Module::BuiltIn => "built into the kernel",
            Module::OnDisk => "not loaded, its file is there",
            Module::Absent => "not loaded, and this kernel's package has no such file",
            Module::NotLoaded => "not loaded (its file is out of sight here)",
            Module::NoModules => "built in, or not to be had: this kernel has no loadable modules",
            Module::Proven => "there: the kernel used it for another way",
        }
    }
}

impl Machine {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Machine { root: root.into() }
    }

    /// Text of `path`, which is absolute, without space around it.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A sysctl by its dotted name.
    pub(crate) fn sysctl(&self, name: &str) -> Option<String> {
        self.read(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    /// A field of `/proc/self/status`.
    pub(crate) fn status(&self, field: &str) -> Option<String> {
        let status = self.read("/proc/self/status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    pub(crate) fn kernel(&self) -> Option<String> {
        self.sysctl("kernel.osrelease")
    }

    pub(crate) fn module(&self, name: &str) -> Module {
        let loaded = self.read("/proc/modules");
        let first = |line: &str| line.split(' ').next() == Some(name);
        if loaded.as_deref().is_some_and(|loaded| loaded.lines().any(first)) {
            return Module::Loaded;
        }
        let folder = format!("/lib/modules/{}", self.kernel().unwrap_or_default());
        let lists = |file: &str| {
            let list = self.read(&format!("{folder}/{file}"))?;
            Some(list.lines().any(|line| module_of(line) == Some(name)))
        };
        // A module with parameters has its folder when it is built in too.
        if lists("modules.builtin") == Some(true) || self.exists(&format!("/sys/module/{name}")) {
            return Module::BuiltIn;
        }
        match lists("modules.dep") {
            Some(true) => Module::OnDisk,
            Some(false) => Module::Absent,
            None if loaded.is_none() && self.exists("/proc/self/status") => Module::NoModules,
            None => Module::NotLoaded,
        }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(Path::new(absolute.trim_start_matches('/')))
    }
}

/// `kernel/net/netfilter/xt_owner.ko.zst: …` is about xt_owner. Names are the same with `-` and with `_`.
fn module_of(line: &str) -> Option<&str> {
    let path = line.split(':').next()?;
    let file = path.rsplit('/').next()?;
    file.split('.').next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(files: &[(&str, &str)], module: &str, expected: Module) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(Machine::new(folder.path()).module(module), expected, "{files:?}");
    }

    const KERNEL: (&str, &str) = ("proc/sys/kernel/osrelease", "6.1.0\n");
    const LOADED: (&str, &str) = ("proc/modules", "nf_nat 61440 2 nft_chain_nat,xt_nat, Live 0x0\n");

    #[test]
    fn a_module_is_where_the_files_say() {
        check(&[LOADED], "nf_nat", Module::Loaded);
        check(&[LOADED], "xt_nat", Module::NotLoaded);
        let builtin = (
            "lib/modules/6.1.0/modules.builtin",
            "kernel/net/netfilter/xt_owner.ko\n",
        );
        check(&[KERNEL, LOADED, builtin], "xt_owner", Module::BuiltIn);
        check(
            &[LOADED, ("sys/module/nf_conntrack/parameters/hashsize", "1")],
            "nf_conntrack",
            Module::BuiltIn,
        );
        let on_disk = (
            "lib/modules/6.1.0/modules.dep",
            "kernel/net/ipv4/netfilter/iptable_nat.ko.zst: kernel/x.ko\n",
        );
        check(&[KERNEL, LOADED, on_disk], "iptable_nat", Module::OnDisk);
        check(&[KERNEL, LOADED, on_disk], "x", Module::Absent);
        check(
            &[KERNEL, ("proc/self/status", "Name: x")],
            "xt_owner",
            Module::NoModules,
        );
    }

    #[test]
    fn status_fields_and_sysctls_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new(folder.path());
        assert_eq!(machine.status("Seccomp"), None);
        fs::create_dir_all(folder.path().join("proc/self")).unwrap();
        fs::write(
            folder.path().join("proc/self/status"),
            "Seccomp:\t2\nSeccomp_filters:\t1\n",
        )
        .unwrap();
        assert_eq!(machine.status("Seccomp").as_deref(), Some("2"));
        assert_eq!(machine.sysctl("net.ipv4.ip_forward"), None);
    }
}
