//! Files, filters and loss.
use super::sink::BUFFER_BYTES;
use super::*;
use crate::stats::{Registry, TagRules, enter_worker, text};
use crate::telemetry::response_flag::ResponseFlag;
use crate::telemetry::stream_info::{ConnectionInfo, StreamInfo};
use outrigger_model::access_log::{
    AccessLogFilter, AwaitedFilter, Command, Comparison, FileLog, FormatPart, LogFormat, Logger, Operator,
};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);

fn registry() -> Arc<Registry> {
    Registry::new(TagRules::new(&[], false).unwrap())
}

fn config(path: &Path, filter: Option<AccessLogFilter>) -> AccessLog {
    let parts = vec![
        FormatPart::Command(Command::ResponseFlags),
        FormatPart::Literal(" line\n".to_owned()),
    ];
    AccessLog {
        filter,
        logger: Logger::File(FileLog {
            path: path.to_owned(),
            format: Arc::new(LogFormat::Text(parts)),
        }),
    }
}

fn info(flags: &[ResponseFlag]) -> StreamInfo {
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let mut info = StreamInfo::new(Arc::new(ConnectionInfo::new(0, address, address)), None);
    flags.iter().for_each(|flag| info.set_flag(*flag));
    info
}

fn log(logger: &AccessLogger, flags: &[ResponseFlag]) {
    logger.log(&Entry::of(&info(flags)));
}

/// The file's text after one stream without a flag, one with `NR` and one with `URX,UF`.
#[track_caller]
fn check(filter: Option<&[&str]>, expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let filter = filter
        .map(|names| AccessLogFilter::ResponseFlag(names.iter().map(|name| (*name).to_owned()).collect()));
    let sinks = LogSinks::new(&registry()).unwrap();
    let logger = AccessLogger::build(&[config(&path, filter)], &sinks).unwrap();
    log(&logger, &[]);
    log(&logger, &[ResponseFlag::NoRouteFound]);
    log(
        &logger,
        &[
            ResponseFlag::UpstreamRetryLimitExceeded,
            ResponseFlag::UpstreamConnectionFailure,
        ],
    );
    assert!(sinks.shutdown(WAIT));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn filters_choose_by_flag() {
    check(None, "- line\nNR line\nURX,UF line\n");
    check(Some(&[]), "NR line\nURX,UF line\n");
    check(Some(&["NR"]), "NR line\n");
    check(Some(&["UF", "DC"]), "URX,UF line\n");
}

#[test]
fn an_unknown_flag_or_a_bad_path_is_refused() {
    let sinks = LogSinks::new(&registry()).unwrap();
    let filter = AccessLogFilter::ResponseFlag(vec!["NRX".to_owned()]);
    let error = |log: AccessLog| {
        AccessLogger::build(&[log], &sinks)
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert!(error(config(Path::new("/dev/stdout"), Some(filter))).contains("unknown response flag \"NRX\""));
    assert!(
        error(config(Path::new("/no/such/dir/a.log"), None)).starts_with("access log /no/such/dir/a.log: ")
    );
}

#[test]
fn four_threads_write_every_line_whole_and_threads_that_end_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let registry = registry();
    let sinks = LogSinks::new(&registry).unwrap();
    // Two loggers of one path share the file.
    let loggers: Vec<_> = (0..2)
        .map(|_| AccessLogger::build(&[config(&path, None)], &sinks).unwrap())
        .collect();
    let workers: Vec<_> = (0..4).map(|worker| (worker, &registry, &loggers)).collect();
    thread::scope(|scope| {
        for (worker, registry, loggers) in workers {
            // Joined one by one: a scope alone does not wait for thread-local destructors.
            let handle = scope.spawn(move || {
                let _guard = enter_worker(registry);
                (0..20_000).for_each(|n| log(&loggers[(worker + n) % 2], &[]));
            });
            handle.join().unwrap();
        }
    });
    assert!(sinks.shutdown(WAIT));
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written.lines().filter(|line| *line == "- line").count(), 80_000);
    assert_eq!(written.lines().count(), 80_000);
    let stats = text(&registry, None, true);
    assert!(stats.contains("filesystem.write_buffered: 80000\n"), "{stats}");
    assert!(stats.contains("filesystem.write_total_buffered: 0\n"), "{stats}");
    assert!(!stats.contains("lines_dropped"), "{stats}");
}

#[test]
fn a_line_waits_for_the_flush_and_the_timer_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let registry = registry();
    let sinks = LogSinks::new(&registry).unwrap();
    let logger = AccessLogger::build(&[config(&path, None)], &sinks).unwrap();
    log(&logger, &[]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    sinks.flush_local();
    assert!(sinks.shutdown(WAIT));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "- line\n");
    assert!(text(&registry, None, true).contains("filesystem.flushed_by_timer: 1\n"));
}

#[test]
fn a_full_disk_is_counted_and_logging_goes_on() {
    let registry = registry();
    let sinks = LogSinks::new(&registry).unwrap();
    let full = AccessLogger::build(&[config(Path::new("/dev/full"), None)], &sinks).unwrap();
    for _ in 0..3 {
        log(&full, &[]);
        sinks.flush_local();
    }
    assert!(sinks.shutdown(WAIT));
    let stats = text(&registry, None, true);
    assert!(stats.contains("filesystem.write_failed: 3\n"), "{stats}");
    assert!(stats.contains("filesystem.write_total_buffered: 0\n"), "{stats}");
}

#[test]
fn a_stuck_reader_drops_lines_and_blocks_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success(), "this test needs mkfifo (coreutils)");
    // Held open for reading, but never read.
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let registry = registry();
    let sinks = LogSinks::new(&registry).unwrap();
    let logger = AccessLogger::build(&[config(&path, None)], &sinks).unwrap();
    let long = info(ResponseFlag::ALL);
    // More than pipe, queue and buffer hold together.
    let lines = (300 * BUFFER_BYTES) / 100;
    for _ in 0..lines {
        logger.log(&Entry::of(&long));
    }
    assert!(registry.counter("access_log.lines_dropped").value() > 0);
    assert!(
        !sinks.shutdown(Duration::from_millis(50)),
        "shutdown gives up in time"
    );
    drop(reader);
}

#[test]
fn reopen_follows_a_rotated_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (
        directory.path().join("access.log"),
        directory.path().join("access.log.1"),
    );
    let sinks = LogSinks::new(&registry()).unwrap();
    let logger = AccessLogger::build(&[config(&path, None)], &sinks).unwrap();
    log(&logger, &[]);
    assert!(sinks.shutdown(WAIT));
    std::fs::rename(&path, &old).unwrap();
    sinks.reopen();
    log(&logger, &[ResponseFlag::NoRouteFound]);
    assert!(sinks.shutdown(WAIT));
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "- line\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "NR line\n");
}

/// What a filter says to streams with these statuses.
#[track_caller]
fn check_statuses(filter: &AccessLogFilter, statuses: &[u16], expected: &[bool]) {
    let filter = filter::Filter::new(filter)
        .unwrap()
        .expect("a filter that is judged");
    let passes = statuses.iter().map(|status| {
        let mut info = info(&[]);
        info.response_code = http::StatusCode::from_u16(*status).ok();
        filter.passes(&info)
    });
    assert_eq!(passes.collect::<Vec<_>>(), expected);
}

#[test]
fn statuses_are_compared_and_filters_joined() {
    let compare = |operator, value| AccessLogFilter::StatusCode(Comparison { operator, value });
    // 0 is no status.
    let statuses = [0, 200, 400, 503];
    check_statuses(
        &compare(Operator::AtLeast, 400),
        &statuses,
        &[false, false, true, true],
    );
    check_statuses(
        &compare(Operator::AtMost, 200),
        &statuses,
        &[true, true, false, false],
    );
    check_statuses(
        &compare(Operator::Equal, 400),
        &statuses,
        &[false, false, true, false],
    );
    check_statuses(
        &compare(Operator::NotEqual, 400),
        &statuses,
        &[true, true, false, true],
    );
    let both = AccessLogFilter::And(vec![
        compare(Operator::AtLeast, 1),
        compare(Operator::AtMost, 400),
    ]);
    check_statuses(&both, &statuses, &[false, true, true, false]);
    let either = AccessLogFilter::Or(vec![compare(Operator::Equal, 200), compare(Operator::Equal, 503)]);
    check_statuses(&either, &statuses, &[false, true, false, true]);
}

#[test]
fn durations_are_compared_in_milliseconds() {
    let slow = AccessLogFilter::Duration(Comparison {
        operator: Operator::AtLeast,
        value: 1_000_000,
    });
    let filter = filter::Filter::new(&slow).unwrap().unwrap();
    let mut info = info(&[]);
    assert!(!filter.passes(&info), "not finished");
    info.finish();
    assert!(!filter.passes(&info));
}

#[test]
fn a_log_that_nothing_can_write_yet_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let sinks = LogSinks::new(&registry()).unwrap();
    let cel = AccessLogFilter::Awaited(AwaitedFilter::Cel("response.code >= 400".to_owned()));
    let within = AccessLogFilter::And(vec![
        AccessLogFilter::ResponseFlag(vec!["NR".to_owned()]),
        cel.clone(),
    ]);
    for filter in [cel, within] {
        let logger = AccessLogger::build(&[config(&path, Some(filter))], &sinks).unwrap();
        log(&logger, &[ResponseFlag::NoRouteFound]);
    }
    assert!(!path.exists());
}
