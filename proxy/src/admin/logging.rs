//! `POST /logging`: shows and changes the levels.
use std::fmt::Write as _;

use super::AdminView;
use super::answer::Answer;
use super::endpoint::{Param, ParamKind};
use super::logger::{Level, Levels, LogControl};
use super::query::Query;

pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "paths",
        help: "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>",
        kind: ParamKind::Text,
    },
    Param {
        name: "level",
        help: "desired logging level, this will change all loggers's level",
        kind: ParamKind::OneOf(&[
            "", "trace", "debug", "info", "warning", "error", "critical", "off",
        ]),
    },
];

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
                     usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
                     usage: /logging?level=<level> (change all levels)\n";

/// Why nothing was changed; the texts are Envoy's.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("invalid number of parameters")]
    Parameters,
    #[error("unknown logger level")]
    Level,
    #[error("unknown logger name")]
    Logger,
    #[error("empty logger name or empty logger level")]
    Empty,
}

/// `POST /logging`.
pub(super) fn answer(view: &dyn AdminView, query: &Query) -> Answer {
    let log = &view.options().log;
    match change(log, query) {
        Ok(()) => Answer::text(list(&log.levels())),
        Err(refusal) => {
            let names = Level::ALL.map(Level::name).join(" ");
            let list = list(&log.levels());
            Answer::bad_request(format!("error: {refusal}\n\n{USAGE}levels: {names} \n{list}"))
        }
    }
}

fn change(log: &LogControl, query: &Query) -> Result<(), Refusal> {
    let given = query.filled();
    let (name, value) = match given.as_slice() {
        [] => return Ok(()),
        [pair] => *pair,
        _ => return Err(Refusal::Parameters),
    };
    let levels = match name {
        "level" => Levels::all(level(value)?),
        "paths" => paths(log.levels(), value)?,
        logger => log
            .levels()
            .with(logger, level(value)?)
            .map_err(|_| Refusal::Logger)?,
    };
    log.set(levels);
    Ok(())
}

fn paths(levels: Levels, value: &str) -> Result<Levels, Refusal> {
    value.split(',').try_fold(levels, |levels, part| {
        let (name, wanted) = part.split_once(':').ok_or(Refusal::Empty)?;
        if name.is_empty() || wanted.is_empty() {
            return Err(Refusal::Empty);
        }
        levels.with(name, level(wanted)?).map_err(|_| Refusal::Logger)
    })
}

fn level(name: &str) -> Result<Level, Refusal> {
    Level::parse(name).ok_or(Refusal::Level)
}

fn list(levels: &Levels) -> String {
    let mut out = String::from("active loggers:\n");
    for (logger, level) in levels.iter() {
        let _infallible = writeln!(out, "  {}: {}", logger.name, level.name());
    }
    out.push('\n');
    out
}
