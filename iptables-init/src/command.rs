//! First words that make this program something else than the init step: `doctor`, `selftest`, and the words by which it
//! starts itself once more ([`crate::throwaway`]).

use std::ffi::OsString;
use std::io::{self, Write};

use crate::apply::{ApplyError, Turn};
use crate::config::{Config, Explain};
use crate::doctor::Report;
use crate::{Exit, configured, doctor, explain, host, selftest};

/// Does what the first word of `args` (after the program's name) says; `None` if it is no such word.
pub(crate) fn run(args: &[OsString]) -> Option<Exit> {
    let v6 = || args.get(2).is_some_and(|word| word == "v6");
    let run = match args.get(1)?.to_str()? {
        "doctor" => examine,
        "selftest" => prove_in_turn,
        doctor::probe::CHILD_WORD => return Some(print(&doctor::probe::child(v6()))),
        selftest::peer::CHILD_WORD => return Some(be_peer(v6())),
        _ => return None,
    };
    let rest = args.iter().take(1).chain(args.iter().skip(2)).cloned();
    Some(configured(rest.collect()).map_or_else(|exit| exit, |config| run(&config)))
}

/// `doctor`, with the flags of the run that is in question.
fn examine(config: &Config) -> Exit {
    let report = doctor::examine(config);
    match print(&text(&report, config)) {
        Exit::Done => report.exit(),
        exit => exit,
    }
}

/// Ends a run whose rules could not be written: with the doctor, unasked, on standard error as the log is.
pub(crate) fn failed(config: &Config, error: &ApplyError) -> Exit {
    config.log.error(&error.to_string());
    if error.is_for_the_doctor() {
        let _ = io::stderr().write_all(text(&doctor::examine(config), config).as_bytes());
    }
    if error.is_missing_support() {
        Exit::MissingSupport
    } else {
        Exit::Failed
    }
}

fn text(report: &Report, config: &Config) -> String {
    if config.log.json {
        report.json()
    } else {
        report.text()
    }
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

/// Proves rules that are there: after they were written, and for `selftest`.
pub(crate) fn prove(config: &Config) -> Exit {
    let report = selftest::run(config);
    selftest::tell(&report, &config.log);
    if report.has_failed() {
        Exit::NotValid
    } else {
        Exit::Done
    }
}

/// `selftest`: no run may change the rules meanwhile.
fn prove_in_turn(config: &Config) -> Exit {
    match Turn::take() {
        Ok(_turn) => prove(config),
        Err(error) => {
            config.log.error(&ApplyError::Turn(error).to_string());
            Exit::Failed
        }
    }
}

fn be_peer(v6: bool) -> Exit {
    match selftest::peer::child(v6) {
        Ok(()) => Exit::Done,
        Err(error) => print(&format!("{error}\n")),
    }
}

/// A reader that has gone is the only trouble there can be.
fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
