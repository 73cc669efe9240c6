//! Finds and runs one program, and explains its complaints.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::host;

/// Looked at after `$PATH`: init containers may run with a short one, or none.
const USUAL_FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program is missing, cannot be run, or complains.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error(
        "{0}: no such program in $PATH or the usual folders; install its package (iptables, nftables) in this image"
    )]
    Missing(String),
    #[error("{program}: cannot be run: {source}")]
    Spawn { program: String, source: io::Error },
    #[error(
        "{command}: no permission ({complaint}); run as root with the capabilities NET_ADMIN and NET_RAW"
    )]
    Permission { command: String, complaint: String },
    #[error("{command}: the kernel lacks something ({complaint}); load on the node: {modules}")]
    Kernel {
        command: String,
        complaint: String,
        /// Kernel modules that the command may need.
        modules: String,
    },
    #[error("{command}: {complaint}")]
    Refused { command: String, complaint: String },
}

/// The path of `name`.
pub(crate) fn find(name: &str) -> Result<PathBuf, ProgramError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(env::split_paths(USUAL_FOLDERS));
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| ProgramError::Missing(name.to_owned()))
}

/// Runs `program` with `input` on its standard input and gives back its standard output.
pub(crate) fn run(program: &Path, args: &[&str], input: &str) -> Result<String, ProgramError> {
    let output = spawn(program, args, input).map_err(|source| ProgramError::Spawn {
        program: program.display().to_string(),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut command = program.display().to_string();
    for arg in args {
        command.push(' ');
        command.push_str(arg);
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let complaint = if complaint.is_empty() {
        output.status.to_string()
    } else {
        complaint
    };
    Err(explain(command, complaint, host::effective_capabilities()))
}

fn spawn(program: &Path, args: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C") // complaints are read below
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading says why on its standard error.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

/// Sorts a complaint by what can be done about it. The words are those of iptables 1.6 to 1.8.
fn explain(command: String, complaint: String, effective: Option<u64>) -> ProgramError {
    let says = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if says(&["Permission denied", "Operation not permitted", "you must be root"]) {
        return ProgramError::Permission { command, complaint };
    }
    let kernel = [
        "do you need to insmod",
        "Table does not exist",
        "unable to initialize table",
        "can't initialize",
        "Protocol not supported",
        "Could not fetch rule set generation id",
        "Failed to initialize nft",
        "No chain/target/match by that name",
        "missing kernel module",
        "RULE_APPEND failed (No such file or directory)",
        "Extension",
        "Operation not supported",
        // nft names no module: it points at the rule that holds the expression.
        "Could not process rule: No such file or directory",
    ];
    // Without CAP_NET_RAW the legacy programs cannot even ask, and complain about the table.
    if says(&kernel) && may_be_denied(&command, effective) {
        return ProgramError::Permission { command, complaint };
    }
    if says(&kernel) {
        let modules = modules(&command);
        return ProgramError::Kernel {
            command,
            complaint,
            modules,
        };
    }
    ProgramError::Refused { command, complaint }
}

/// Whether a complaint about the kernel may come from missing capabilities: bits of capabilities(7) in `effective`.
fn may_be_denied(command: &str, effective: Option<u64>) -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    let program = command.split(' ').next().unwrap_or_default();
    let needed = if program.contains("legacy") {
        NET_ADMIN | NET_RAW
    } else {
        NET_ADMIN
    };
    effective.is_some_and(|effective| effective & needed != needed)
}

/// Modules that rules of ours may need, for the program that `command` starts with.
fn modules(command: &str) -> String {
    let program = command.split(' ').next().unwrap_or_default();
    if program.ends_with("nft") {
        return "nf_tables nft_redir nft_ct nft_tproxy nf_nat nf_conntrack".to_owned();
    }
    let legacy = if program.contains("ip6tables") {
        "ip6table"
    } else {
        "iptable"
    };
    format!(
        "nf_nat xt_REDIRECT xt_owner xt_tcpudp xt_conntrack, with nf_tables nft_compat (nft) or {legacy}_nat \
         {legacy}_mangle {legacy}_raw (legacy)"
    )
}

impl ProgramError {
    /// Whether the image or the node lacks something, so that no flag or privilege can help.
    pub fn is_missing_support(&self) -> bool {
        matches!(self, ProgramError::Missing(_) | ProgramError::Kernel { .. })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(command: &str, complaint: &str, expected: &[&str]) {
        let message = explain(command.to_owned(), complaint.to_owned(), Some(u64::MAX)).to_string();
        for part in expected {
            assert!(message.contains(part), "{message:?} does not hold {part:?}");
        }
    }

    #[test]
    fn complaints_are_sorted_by_what_can_be_done() {
        let no_root = "Fatal: can't open lock file /run/xtables.lock: Permission denied";
        check("iptables -L", no_root, &["NET_ADMIN", no_root]);
        let no_module =
            "can't initialize ip6tables table `nat': Table does not exist (do you need to insmod?)";
        check("ip6tables-legacy -S", no_module, &["ip6table_nat", "xt_owner"]);
        check(
            "iptables-restore",
            "line 2: Chain already exists",
            &["iptables-restore: line 2: Chain"],
        );
        let no_table = "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'nat'";
        check(
            "iptables-legacy-restore --noflush",
            no_table,
            &["iptable_nat", "kernel"],
        );
        let no_expression = "/dev/stdin:9:1-5: Error: Could not process rule: No such file or directory";
        check("/usr/sbin/nft -f -", no_expression, &["nft_redir", "nft_tproxy"]);
    }

    #[test]
    fn legacy_programs_need_a_capability_more() {
        let check = |command: &str, effective: Option<u64>, expected: bool| {
            assert_eq!(
                may_be_denied(command, effective),
                expected,
                "{command} {effective:?}"
            );
        };
        check("/usr/sbin/iptables-legacy-restore --noflush", Some(0x1000), true);
        check("/usr/sbin/iptables-legacy-restore --noflush", Some(0x3000), false);
        check("/usr/sbin/iptables-nft-restore --noflush", Some(0x1000), false);
        check("/usr/sbin/iptables-nft-restore --noflush", Some(0x2000), true);
        check("/usr/sbin/nft -f -", None, false);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = find("iptables-of-nobody").unwrap_err().to_string();
        assert!(
            error.starts_with("iptables-of-nobody: no such program"),
            "{error}"
        );
    }
}
