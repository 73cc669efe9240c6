//! `outrigger demo`, and the command by which the demo starts its children. Flags only; the demo is in `outrigger-demo`.
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use outrigger_demo::child::{self, Role};
use outrigger_demo::run::{self, Options};

const DEMO: &str = "demo";
const CHILD: &str = "demo-child";

/// A command line of the demo.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Demo {
    Run(Options),
    /// Of the process with this id.
    Child(i32, Role),
}

/// Both commands.
pub(super) fn commands() -> [Command; 2] {
    let demo = Command::new(DEMO)
        .about("A mesh on loopback: three workloads with sidecars, traffic, and a file that moves it")
        .args_override_self(true)
        .args([
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("bill-service's resources, watched; without, the demo writes a file and says where"),
            Arg::new("duration")
                .long("duration")
                .value_name("S")
                .value_parser(value_parser!(u64).range(1..=u64::from(u32::MAX)))
                .help("Seconds of traffic, then the end; without, until Ctrl-C"),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON object a second, and a summary"),
        ]);
    let parent = Arg::new("parent").required(true).value_parser(value_parser!(i32));
    let rest = Arg::new("arguments")
        .num_args(1..)
        .required(true)
        .allow_hyphen_values(true)
        .trailing_var_arg(true)
        .value_parser(value_parser!(OsString));
    let app = [
        Arg::new("version").required(true),
        Arg::new("address")
            .required(true)
            .value_parser(value_parser!(SocketAddr)),
    ];
    let child = Command::new(CHILD)
        .hide(true)
        .arg(parent)
        .subcommand_required(true)
        .subcommand(Command::new("sidecar").disable_help_flag(true).arg(rest))
        .subcommand(Command::new("app").args(app));
    [demo, child]
}

/// What the command line asks of the demo, if it does.
pub(super) fn parse(matches: &ArgMatches) -> Option<Demo> {
    let (name, matches) = matches.subcommand()?;
    if name == DEMO {
        return Some(Demo::Run(Options {
            config: matches.get_one("config").cloned(),
            duration: matches.get_one("duration").copied().map(Duration::from_secs),
            json: matches.get_flag("json"),
            child_command: CHILD,
        }));
    }
    let parent = matches.get_one("parent").copied()?;
    let role = match matches.subcommand()? {
        ("sidecar", matches) => Role::Sidecar(
            matches
                .get_many("arguments")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        ),
        (_, matches) => Role::App {
            version: matches.get_one("version").cloned()?,
            address: matches.get_one("address").copied()?,
        },
    };
    Some(Demo::Child(parent, role))
}

/// Runs it to its end.
pub(super) fn run(demo: Demo) -> ExitCode {
    let ended = match demo {
        Demo::Run(options) => run::run(&options).map_err(|error| error.to_string()),
        Demo::Child(parent, role) => Err(child::run(parent, role).to_string()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("outrigger: {reason}");
            ExitCode::FAILURE
        }
    }
}
