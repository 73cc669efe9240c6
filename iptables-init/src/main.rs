//! `iptables-init`: the init container's program; everything is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(iptables_init::run(std::env::args_os()) as u8)
}
