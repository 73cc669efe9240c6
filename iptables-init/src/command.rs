//! First words that make this program something else than the init step: `doctor`, and the word by which it
//! starts itself once more ([`crate::throwaway`]).

use std::ffi::OsString;
use std::io::{self, Write};

use crate::config::{Config, Explain};
use crate::{Exit, configured, doctor, explain, host};

/// Does what the first word of `args` (after the program's name) says; `None` if it is no such word.
pub(crate) fn run(args: &[OsString]) -> Option<Exit> {
    let v6 = || args.get(2).is_some_and(|word| word == "v6");
    let run = match args.get(1)?.to_str()? {
        "doctor" => examine,
        doctor::probe::CHILD_WORD => return Some(print(&doctor::probe::child(v6()))),
        _ => return None,
    };
    let rest = args.iter().take(1).chain(args.iter().skip(2)).cloned();
    Some(configured(rest.collect()).map_or_else(|exit| exit, |config| run(&config)))
}

/// `doctor`, with the flags of the run that is in question.
fn examine(config: &Config) -> Exit {
    let report = doctor::examine(config);
    let text = if config.log.json {
        report.json()
    } else {
        report.text()
    };
    match print(&text) {
        Exit::Done => report.exit(),
        exit => exit,
    }
}

/// The doctor, unasked, after rules could not be written: on standard error, as the log is.
pub(crate) fn diagnose(config: &Config) {
    let report = doctor::examine(config);
    let text = if config.log.json {
        report.json()
    } else {
        report.text()
    };
    let _ = io::stderr().write_all(text.as_bytes());
}

/// `--explain`
pub(crate) fn explain(config: &Config, about: &Explain) -> Exit {
    let route = match about.question.way {
        explain::Way::Out(to) => host::route(to.ip()),
        explain::Way::In(_) => host::way_in(),
    };
    print(&explain::text(
        config,
        &about.question,
        about.owner,
        route.as_ref(),
    ))
}

/// A reader that has gone is the only trouble there can be.
fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
