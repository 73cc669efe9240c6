//! Flags to [`Options`]. Also the flags of Envoy that mean nothing here: each is accepted, with one line that says so.
use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use outrigger_model::node::is_true;

use super::demo::{self, Demo};
use super::validate::{self, Validate};
use super::{Mode, Options, Service};
use crate::admin;
use crate::admin::logger::{Level, Levels, LogControl};
use crate::config::history::Limits;
use crate::config::snapshot::SnapshotOptions;
use crate::config::streams::StreamOptions;

/// The command line, understood.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) options: Options,
    /// For stderr, one line each.
    pub(super) remarks: Vec<String>,
}

/// The command line asks for something else than running.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Help or version, for stdout.
    Answer(String),
    /// It is wrong; for stderr.
    Fault(String),
    /// The demo, or one of its children.
    Demo(Demo),
    /// Files to check.
    Validate(Validate),
    /// A wrong command line of `validate`, whose exit status tells it from an invalid file; for stderr.
    Usage(String),
}

/// A flag that Envoy has and that has no effect here.
struct Ignored {
    name: &'static str,
    takes_value: bool,
}

const fn flag(name: &'static str) -> Ignored {
    Ignored {
        name,
        takes_value: false,
    }
}

const fn valued(name: &'static str) -> Ignored {
    Ignored {
        name,
        takes_value: true,
    }
}

/// Envoy 1.40's, in the order of its help.
const IGNORED: &[Ignored] = &[
    valued("stats-tag"),
    flag("enable-core-dump"),
    valued("socket-mode"),
    valued("socket-path"),
    valued("disable-extensions"),
    flag("cpuset-threads"),
    flag("enable-mutex-tracing"),
    flag("disable-hot-restart"),
    valued("parent-shutdown-time-s"),
    valued("drain-strategy"),
    valued("file-flush-min-size-kb"),
    valued("restart-epoch"),
    valued("log-path"),
    flag("enable-fine-grain-logging"),
    flag("log-format-escaped"),
    valued("log-format"),
    valued("local-address-ip-version"),
    flag("log-stacktrace-single-entry"),
    flag("skip-deprecated-logs"),
    flag("ignore-unknown-dynamic-fields"),
    flag("reject-unknown-dynamic-fields"),
    valued("base-id-path"),
    flag("skip-hot-restart-parent-stats"),
    flag("skip-hot-restart-on-no-parent"),
    flag("use-dynamic-base-id"),
    valued("base-id"),
];

const IGNORED_HELP: &str = "Accepted for Envoy's sake; has no effect here";

/// Reads the command line. The log of the options changes nothing yet.
///
/// # Errors
/// There is nothing to run: help was asked for, or something is wrong.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, Told> {
    // What follows is for whoever started the process, to find it by; so do Envoy's parser and func-e.
    let arguments = arguments.into_iter().take_while(|argument| argument != "--");
    let arguments: Vec<OsString> = arguments.collect();
    let is_validate = arguments
        .get(1)
        .is_some_and(|argument| validate::is_command(argument));
    let matches = command().try_get_matches_from(arguments).map_err(|error| {
        let text = || error.to_string().trim_start_matches("error: ").to_owned();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Told::Answer(error.to_string()),
            _ if is_validate => Told::Usage(text()),
            _ => Told::Fault(text()),
        }
    })?;
    if let Some(command) = validate::parse(&matches) {
        return Err(Told::Validate(command));
    }
    if let Some(demo) = demo::parse(&matches) {
        return Err(Told::Demo(demo));
    }
    if matches.get_flag("hot-restart-version") {
        return Err(Told::Answer("disabled\n".to_owned()));
    }
    let mut remarks = ignored(&matches);
    let options = options(&matches, &mut remarks)?;
    Ok(Parsed { options, remarks })
}

fn options(matches: &ArgMatches, remarks: &mut Vec<String>) -> Result<Options, Told> {
    let config_path = matches.get_one::<PathBuf>("config-path").cloned();
    let config_yaml = text(matches, "config-yaml");
    if config_path.is_none() && config_yaml.is_none() {
        let reason = "no configuration: give --config-path FILE (-c FILE), --config-yaml TEXT, or both";
        return Err(Told::Fault(reason.to_owned()));
    }
    let log_level = log_level(&text(matches, "log-level").unwrap_or_else(|| "info".to_owned()))?;
    let component_log_level = text(matches, "component-log-level").unwrap_or_default();
    let levels = component_levels(Levels::all(log_level), &component_log_level, remarks)?;
    Ok(Options {
        config_path,
        config_yaml,
        mode: if text(matches, "mode").as_deref() == Some("validate") {
            Mode::Validate
        } else {
            Mode::Serve
        },
        concurrency: concurrency(matches.get_one("concurrency").copied()),
        log_level,
        component_log_level,
        log: LogControl::new(levels, |_| {}),
        drain_time: Duration::from_secs(
            matches
                .get_one::<u32>("drain-time-s")
                .copied()
                .unwrap_or(600)
                .into(),
        ),
        allow_unknown_static_fields: matches.get_flag("allow-unknown-static-fields")
            || matches.get_flag("allow-unknown-fields"),
        service: Service {
            node: text(matches, "service-node"),
            cluster: text(matches, "service-cluster"),
            zone: text(matches, "service-zone"),
        },
        admin_address_path: matches.get_one::<PathBuf>("admin-address-path").cloned(),
        history: Limits {
            versions: number(matches, "config-history-versions").unwrap_or(Limits::default().versions),
            bytes: number(matches, "config-history-bytes").unwrap_or(Limits::default().bytes),
        },
        snapshot: snapshot(matches)?,
        streams: StreamOptions {
            token_file: matches.get_one::<PathBuf>("ads-token-file").cloned(),
            keeps_last_set: matches.get_flag("keep-last-set"),
            asks_proxy_config: std::env::var("PROXY_CONFIG_XDS_AGENT").is_ok_and(|text| is_true(&text)),
        },
        file_flush_interval: Duration::from_millis(
            // A timer of 0 never lets go of its thread.
            matches
                .get_one::<u32>("file-flush-interval-msec")
                .copied()
                .unwrap_or(10_000)
                .max(1)
                .into(),
        ),
    })
}

fn number(matches: &ArgMatches, name: &str) -> Option<usize> {
    let number = matches.get_one::<u32>(name).copied()?;
    Some(usize::try_from(number).unwrap_or(usize::MAX))
}

/// A day: longer than any upgrade of a control plane, shorter than a forgotten pod.
const SNAPSHOT_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

fn snapshot(matches: &ArgMatches) -> Result<Option<SnapshotOptions>, Told> {
    let max_age = matches.get_one::<u32>("config-snapshot-max-age-s").copied();
    let Some(path) = matches.get_one::<PathBuf>("config-snapshot").cloned() else {
        return match max_age {
            None => Ok(None),
            Some(_) => Err(Told::Fault(
                "--config-snapshot-max-age-s is given without --config-snapshot FILE".to_owned(),
            )),
        };
    };
    let max_age = max_age.map_or(SNAPSHOT_MAX_AGE, |seconds| Duration::from_secs(seconds.into()));
    Ok(Some(SnapshotOptions { path, max_age }))
}

fn text(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.get_one::<String>(name).cloned()
}

/// Envoy's default is the number of hardware threads; 0 counts as 1 there too.
fn concurrency(given: Option<u32>) -> usize {
    let cpus = || std::thread::available_parallelism().map_or(1, NonZero::get);
    given.map_or_else(cpus, |given| usize::try_from(given).unwrap_or(usize::MAX).max(1))
}

fn log_level(name: &str) -> Result<Level, Told> {
    let level = if name == "warn" {
        Some(Level::Warning)
    } else {
        Level::parse(name)
    };
    level.ok_or_else(|| {
        let known = Level::ALL.map(Level::name).join(", ");
        Told::Fault(format!("invalid log level {name:?}; give one of {known}"))
    })
}

/// `upstream:debug,misc:error`. Envoy's names that no module here logs under get a remark: Istio passes some of them always.
fn component_levels(levels: Levels, text: &str, remarks: &mut Vec<String>) -> Result<Levels, Told> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .try_fold(levels, |levels, part| {
            let Some((name, level)) = part.split_once(':') else {
                let reason =
                    format!("--component-log-level: {part:?} is not name:level, as in upstream:debug");
                return Err(Told::Fault(reason));
            };
            let level = log_level(level)?;
            Ok(levels.clone().with(name, level).unwrap_or_else(|unknown| {
                remarks.push(format!("--component-log-level: {unknown}, it has no effect here"));
                levels
            }))
        })
}

fn ignored(matches: &ArgMatches) -> Vec<String> {
    let given = IGNORED
        .iter()
        .filter(|flag| matches.value_source(flag.name) == Some(clap::parser::ValueSource::CommandLine));
    given
        .map(|flag| format!("--{} has no effect here", flag.name))
        .collect()
}

fn command() -> Command {
    let known = [
        arg("config-path", "FILE", "Path to configuration file")
            .short('c')
            .value_parser(value_parser!(PathBuf)),
        arg(
            "config-yaml",
            "TEXT",
            "Inline YAML configuration, merges with the contents of --config-path",
        )
        .allow_hyphen_values(true),
        arg(
            "mode",
            "MODE",
            "serve: validate the configuration, then serve traffic; validate: validate it and exit",
        )
        .value_parser(["serve", "validate"])
        .default_value("serve"),
        arg(
            "concurrency",
            "N",
            "Number of worker threads; default: one for each CPU",
        )
        .value_parser(value_parser!(u32)),
        arg(
            "log-level",
            "LEVEL",
            "trace, debug, info, warning (or warn), error, critical or off; default: info",
        )
        .short('l'),
        arg(
            "component-log-level",
            "NAME:LEVEL,…",
            "Levels of single loggers, as upstream:debug,config:trace",
        ),
        arg(
            "drain-time-s",
            "N",
            "Drain time of removed listeners, seconds; default: 600",
        )
        .value_parser(value_parser!(u32)),
        arg(
            "file-flush-interval-msec",
            "N",
            "Interval for access log flushing, milliseconds; default: 10000",
        )
        .value_parser(value_parser!(u32)),
        arg(
            "config-history-versions",
            "N",
            "Accepted versions of each type that /config/history and /config/diff know; 0: none; default: 10",
        )
        .value_parser(value_parser!(u32)),
        arg(
            "config-history-bytes",
            "N",
            "Memory for resources that were replaced, bytes; default: 2097152",
        )
        .value_parser(value_parser!(u32)),
        arg(
            "config-snapshot",
            "FILE",
            "Keeps the last good configuration in this file, without secrets, and starts with it when the control plane is down",
        )
        .value_parser(value_parser!(PathBuf)),
        arg(
            "config-snapshot-max-age-s",
            "N",
            "A configuration snapshot older than this is not used, seconds; default: 86400",
        )
        .value_parser(value_parser!(u32)),
        arg(
            "ads-token-file",
            "FILE",
            "Sends the token in this file to the ADS server (authorization: Bearer …), read anew for each stream",
        )
        .value_parser(value_parser!(PathBuf)),
        switch(
            "keep-last-set",
            "A state-of-the-world answer without any cluster or listener takes none away",
        ),
        arg("service-node", "ID", "Node id, before the bootstrap's"),
        arg(
            "service-cluster",
            "NAME",
            "Cluster of the node, before the bootstrap's",
        ),
        arg("service-zone", "NAME", "Zone of the node, before the bootstrap's"),
        arg(
            "admin-address-path",
            "FILE",
            "Writes the address of the admin interface to this file",
        )
        .value_parser(value_parser!(PathBuf)),
        switch(
            "allow-unknown-static-fields",
            "Allow unknown fields in static configuration",
        ),
        switch("allow-unknown-fields", "The same (Envoy's old name)"),
        switch(
            "hot-restart-version",
            "Prints the hot restart compatibility version: disabled, there is none",
        ),
    ];
    let ignored = IGNORED.iter().map(|flag| {
        let arg = if flag.takes_value {
            arg(flag.name, "VALUE", IGNORED_HELP)
        } else {
            switch(flag.name, IGNORED_HELP)
        };
        arg.hide_short_help(true)
    });
    Command::new("outrigger")
        .about("A sidecar proxy that istiod drives as it drives Envoy")
        .version(admin::version())
        .args(known)
        .args(ignored)
        .subcommands(demo::commands())
        .subcommand(validate::command())
        .disable_help_subcommand(true)
        // Envoy's parser takes the last of repeated values; so do wrappers that append to a command line.
        .args_override_self(true)
}

fn arg(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help).num_args(1)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Parsed, Told> {
        parse(
            ["outrigger"]
                .into_iter()
                .chain(line.split_whitespace())
                .map(OsString::from),
        )
    }

    fn fault(line: &str) -> String {
        match read(line) {
            Err(Told::Fault(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn check<T: PartialEq + std::fmt::Debug>(line: &str, value: impl Fn(&Options) -> T, expected: T) {
        assert_eq!(value(&read(line).expect(line).options), expected, "{line}");
    }

    #[test]
    fn what_follows_two_dashes_is_not_ours() {
        check(
            "-c a.yaml --concurrency 3 -- --run-id 7 --concurrency 4",
            |options| options.concurrency,
            3,
        );
    }

    #[test]
    fn streams_are_as_envoys_unless_told_otherwise() {
        let streams = |options: &Options| options.streams.clone();
        check("-c a.yaml", streams, StreamOptions::default());
        let told = StreamOptions {
            token_file: Some(PathBuf::from("/t")),
            keeps_last_set: true,
            asks_proxy_config: false,
        };
        check("-c a.yaml --ads-token-file /t --keep-last-set", streams, told);
    }

    #[test]
    fn istios_own_command_line_is_understood() {
        let line = "-c etc/envoy-rev.json --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 \
                    --file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning \
                    --component-log-level misc:error --skip-deprecated-logs --concurrency 2";
        let Parsed { options, remarks } = read(line).expect("Istio passes this");
        assert_eq!(options.config_path, Some(PathBuf::from("etc/envoy-rev.json")));
        assert_eq!(
            (options.drain_time, options.file_flush_interval),
            (Duration::from_secs(45), Duration::from_secs(1))
        );
        assert_eq!(
            (options.concurrency, options.log_level, options.mode),
            (2, Level::Warning, Mode::Serve)
        );
        assert!(options.allow_unknown_static_fields);
        let expected = Levels::all(Level::Warning)
            .with("misc", Level::Error)
            .expect("a logger");
        assert_eq!(options.log.levels(), expected);
        let ignored = [
            "disable-hot-restart",
            "drain-strategy",
            "local-address-ip-version",
            "skip-deprecated-logs",
        ];
        assert_eq!(
            remarks,
            ignored.map(|name| format!("--{name} has no effect here"))
        );
    }

    #[test]
    fn defaults_are_envoys() {
        check("-c x", |options| options.drain_time, Duration::from_secs(600));
        check(
            "-c x",
            |options| options.file_flush_interval,
            Duration::from_secs(10),
        );
        check("-c x", |options| options.log_level, Level::Info);
        check("-c x", |options| options.concurrency >= 1, true);
        check("-c x --concurrency 0", |options| options.concurrency, 1);
        check("-c x -l warn", |options| options.log_level, Level::Warning);
        check(
            "--config-yaml {} --mode=validate",
            |options| options.mode,
            Mode::Validate,
        );
        check(
            "-c x -c y",
            |options| options.config_path.clone(),
            Some(PathBuf::from("y")),
        );
    }

    #[test]
    fn every_flag_of_envoy_is_accepted() {
        for flag in IGNORED {
            let value = if flag.takes_value { " 1" } else { "" };
            let parsed = read(&format!("-c x --{}{value}", flag.name)).expect(flag.name);
            assert_eq!(parsed.remarks, [format!("--{} has no effect here", flag.name)]);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_the_nearest_flag() {
        let text = fault("-c x --concurency 2");
        assert!(
            text.contains("--concurency") && text.contains("'--concurrency'"),
            "{text}"
        );
        assert!(fault("-c x --mode init_only").contains("[possible values: serve, validate]"));
        assert!(fault("-c x --concurrency many").contains("'many'"));
        assert!(fault("-c x extra").contains("'extra'"));
        assert_eq!(
            fault("-c x -l loud"),
            "invalid log level \"loud\"; give one of trace, debug, info, warning, error, critical, off"
        );
        assert!(fault("-c x --component-log-level upstream").contains("\"upstream\" is not name:level"));
    }

    #[test]
    fn no_configuration_says_what_to_give() {
        let text = fault("--concurrency 1");
        assert!(
            text.contains("--config-path FILE") && text.contains("--config-yaml"),
            "{text}"
        );
    }

    #[test]
    fn a_component_without_code_here_gets_a_remark() {
        let remarks = read("-c x --component-log-level lua:debug,pool:trace")
            .expect("Envoy has it")
            .remarks;
        assert_eq!(
            remarks,
            ["--component-log-level: unknown logger \"lua\", it has no effect here"]
        );
    }

    #[test]
    fn the_demo_and_its_children_have_commands() {
        use outrigger_demo::child::Role;
        let told = |line: &str| match read(line) {
            Err(Told::Demo(demo)) => demo,
            other => panic!("{line}: {other:?}"),
        };
        let Demo::Run(options) = told("demo --config f.yaml --duration 15 --json") else {
            panic!("not the demo itself");
        };
        assert_eq!(options.config, Some(PathBuf::from("f.yaml")));
        assert_eq!(
            (options.duration, options.json),
            (Some(Duration::from_secs(15)), true)
        );
        let sidecar = Role::Sidecar(["-c", "b", "--concurrency", "1"].map(OsString::from).to_vec());
        assert_eq!(
            told("demo-child 7 sidecar -c b --concurrency 1"),
            Demo::Child(7, sidecar)
        );
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
        let version = "v1".to_owned();
        assert_eq!(
            told("demo-child 7 app v1 127.0.0.1:80"),
            Demo::Child(7, Role::App { version, address })
        );
        assert!(fault("demo --duration 0").contains("'0'"));
        assert!(fault("demo --durations 5").contains("'--duration'"));
        assert!(
            matches!(read("--help"), Err(Told::Answer(text)) if text.contains("demo ") && !text.contains("demo-child"))
        );
    }

    #[test]
    fn version_and_help_are_answers() {
        assert_eq!(
            read("--version").err(),
            Some(Told::Answer(format!("outrigger {}\n", admin::version())))
        );
        assert!(matches!(read("--help"), Err(Told::Answer(text)) if text.contains("--config-path")));
    }
}
