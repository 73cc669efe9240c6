//! `outrigger validate FILE…`: reads files, prints what the model says of them.
//!
//! Owns files, standard input and the exit status; the checks are in [`outrigger_model::validate`], each format is a file here.
mod json;
mod read;
mod sarif;
mod text;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use outrigger_model::dump::Descriptors;
use outrigger_model::validate::{Input, Report, Rule, Severity, validate};

const VALIDATE: &str = "validate";

/// Something could not be read, or the command line is wrong.
pub(super) const UNREADABLE: u8 = 2;

/// The command line of `validate`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Validate {
    files: Vec<PathBuf>,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Sarif,
}

/// The command.
pub(super) fn command() -> Command {
    Command::new(VALIDATE)
        .about("Checks configuration files as one configuration: every field, every rejection, every name that leads nowhere")
        .after_help(
            "FILE is a bootstrap, a DiscoveryResponse (state of the world or delta), a config dump (istiod's or Envoy's) or resources, \
             as YAML, JSON or protobuf; - is standard input. What one file names, another may hold.\n\n\
             Exit status: 0 valid, warnings or not; 1 invalid; 2 a file cannot be read, or wrong usage.",
        )
        .args_override_self(true)
        .args([
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .num_args(1..)
                .value_parser(value_parser!(PathBuf))
                .help("Files to check together"),
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(["text", "json", "sarif"])
                .default_value("text")
                .help("For people, for programs, for code review (SARIF 2.1.0)"),
        ])
}

/// The first argument asks for it.
pub(super) fn is_command(argument: &OsStr) -> bool {
    argument == VALIDATE
}

/// The command line, if it is one of this command.
pub(super) fn parse(matches: &ArgMatches) -> Option<Validate> {
    let matches = matches.subcommand_matches(VALIDATE)?;
    let format = match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => Format::Json,
        Some("sarif") => Format::Sarif,
        _ => Format::Text,
    };
    let files = matches.get_many::<PathBuf>("file");
    Some(Validate {
        files: files.into_iter().flatten().cloned().collect(),
        format,
    })
}

/// A whole run, for the formats.
struct Outcome {
    inputs: Vec<Input>,
    /// Files that could not be read at all: name and reason.
    unread: Vec<(String, String)>,
    report: Report,
}

impl Outcome {
    fn status(&self) -> u8 {
        let is_unreadable = |rule: Rule| rule == Rule::Unreadable;
        if !self.unread.is_empty() || self.report.findings.iter().any(|found| is_unreadable(found.rule)) {
            UNREADABLE
        } else {
            u8::from(self.report.count(Severity::Error) > 0)
        }
    }
}

/// Checks and prints.
pub(super) fn run(command: &Validate) -> ExitCode {
    let descriptors = match Descriptors::full() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            eprintln!("outrigger: {error}");
            return ExitCode::from(UNREADABLE);
        }
    };
    let (inputs, unread) = read::all(&command.files);
    let report = validate(&descriptors, &inputs);
    let outcome = Outcome {
        inputs,
        unread,
        report,
    };
    let text = match command.format {
        Format::Text => text::render(&outcome),
        Format::Json => json::render(&outcome),
        Format::Sarif => sarif::render(&outcome),
    };
    // Whoever closes the pipe early has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(outcome.status())
}

#[cfg(test)]
mod tests;
