//! A network namespace to throw away: this program starts itself once more, and the child makes one.
//!
//! A child, because leaving a namespace again needs more privilege than entering it, and because a user
//! namespace, which stands in where CAP_SYS_ADMIN is missing, can only be entered by a process of one thread.
//! The namespace is gone when the child is. Source: network_namespaces(7), user_namespaces(7).

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::netlink::nft;

/// Why there is no namespace to throw away.
#[derive(Debug, thiserror::Error)]
pub enum NoNamespace {
    #[error("start this program once more: {0}")]
    Spawn(io::Error),
    #[error(
        "the kernel refuses another network namespace: {plain} without a user namespace (CAP_SYS_ADMIN), \
         {user} with one (seccomp, user.max_user_namespaces)"
    )]
    Refused { plain: Errno, user: Errno },
}

/// Starts this program with `words`; both its ends are pipes.
///
/// # Errors
/// [`NoNamespace::Spawn`]; that the child finds no namespace is for it to say.
pub(crate) fn child(words: &[&str]) -> Result<Child, NoNamespace> {
    Command::new("/proc/self/exe")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Legacy programs share one lock with all namespaces; here nobody else can be in the way.
        .env("XTABLES_LOCKFILE", "/dev/null")
        .spawn()
        .map_err(NoNamespace::Spawn)
}

/// Moves this process, of one thread, into a new network namespace, in which it may do anything.
///
/// # Errors
/// [`NoNamespace::Refused`]
pub(crate) fn enter() -> Result<(), NoNamespace> {
    // To make a namespace takes another capability than to write rules in it.
    let plain = match unshare(CloneFlags::CLONE_NEWNET) {
        Err(errno) => errno,
        Ok(()) => match nft::tables() {
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => errno,
            Ok(_) | Err(_) => return Ok(()),
        },
    };
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|user| NoNamespace::Refused { plain, user })?;
    // Programs ask for uid 0. Without the maps they would see 65534, and say "must be root".
    let _ = fs::write("/proc/self/setgroups", "deny");
    let _ = fs::write("/proc/self/gid_map", format!("0 {gid} 1"));
    let _ = fs::write("/proc/self/uid_map", format!("0 {uid} 1"));
    Ok(())
}
