//! The command line: Envoy's flags, so that whoever starts Envoy can start this.
//!
//! Owns the flags and what goes to stdout and stderr before and after the server runs. Source: Envoy docs "Command line options";
//! `envoy --help` of 1.40.
mod demo;
mod flags;
mod logging;
mod validate;

use std::ffi::OsString;
use std::process::ExitCode;

use flags::{Parsed, Told};

pub(crate) use crate::admin::options::{Mode, Options, Service};

/// Runs the program with the arguments of the process. Exit code 0: it ended in order, or said what was asked; 1: everything else,
/// but what `validate` calls 2.
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match flags::parse(arguments) {
        Ok(parsed) => parsed,
        Err(Told::Answer(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Told::Demo(demo)) => return demo::run(demo),
        Err(Told::Validate(command)) => return validate::run(&command),
        Err(Told::Usage(text)) => {
            eprintln!("outrigger: {}", text.trim_end());
            return ExitCode::from(validate::UNREADABLE);
        }
        Err(Told::Fault(text)) => {
            eprintln!("outrigger: {}", text.trim_end());
            return ExitCode::FAILURE;
        }
    };
    let Parsed { mut options, remarks } = parsed;
    options.log = logging::start(options.log.levels());
    for remark in remarks {
        eprintln!("outrigger: {remark}");
    }
    let file = options
        .config_path
        .as_ref()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let mode = options.mode;
    if let Err(error) = crate::server::run(options) {
        eprintln!("outrigger: {error}");
        return ExitCode::FAILURE;
    }
    if mode == Mode::Validate {
        println!("configuration '{file}' OK");
    }
    ExitCode::SUCCESS
}
