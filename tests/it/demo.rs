//! `outrigger demo`, run as its users run it: an ordinary user, release binary, nothing prepared.

mod output;
mod session;

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::process::until;
use nix::sys::signal::Signal;
use serde_json::Value;
use session::{PATIENCE, Session, lives, send};

/// Standard deviations of a binomial share that are still chance: one run in a million and a half is beyond.
const DEVIATIONS: f64 = 5.0;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Requests that a version answered, in these seconds.
fn answered(seconds: &[Value], version: &str) -> u64 {
    seconds
        .iter()
        .map(|second| number(&second["versions"][version]["requests"]))
        .sum()
}

/// Whether `version` got its percentage, within [`DEVIATIONS`].
#[allow(clippy::cast_precision_loss)]
fn check_share(seconds: &[Value], version: &str, percent: f64) {
    let all = answered(seconds, "v1") + answered(seconds, "v2");
    assert!(all >= 300, "too few to judge: {all} in {} s", seconds.len());
    let (all, part, share) = (all as f64, answered(seconds, version) as f64, percent / 100.0);
    let allowed = DEVIATIONS * (all * share * (1.0 - share)).sqrt();
    let off = (part - all * share).abs();
    assert!(
        off <= allowed,
        "{version}: {part} of {all}, {percent} % ± {allowed:.0} expected"
    );
}

fn failed(seconds: &[Value]) -> u64 {
    seconds.iter().map(|second| number(&second["failed"])).sum()
}

fn objects(session: &Session) -> Vec<Value> {
    session.seconds().into_iter().map(|it| it.object).collect()
}

#[test]
fn a_weight_edit_moves_the_traffic_within_a_second_and_no_request_fails() {
    let mut session = Session::start(&["--duration", "15"]);
    let folder = session.file().parent().expect("a folder").to_owned();
    until("six seconds", PATIENCE, || {
        (session.seconds().len() >= 6).then_some(())
    });
    let processes = session.processes();
    assert_eq!(processes.len(), 6, "{processes:?}");
    check_share(&objects(&session), "v1", 90.0);

    let edited = Instant::now();
    session.edit(&[("weight: 90", "weight: 11"), ("weight: 10", "weight: 89")]);
    let status = session.end();
    assert_eq!(status.code(), Some(0));

    session.event(edited, "served", &["v1 11", "v2 89"]);
    let begins_later = |it: &session::Printed| it.at > edited + Duration::from_secs(2);
    let after: Vec<Value> = session
        .seconds()
        .into_iter()
        .filter(begins_later)
        .map(|it| it.object)
        .collect();
    assert!(after.len() >= 5, "{} seconds after the edit", after.len());
    check_share(&after, "v1", 11.0);

    let summary = session.printed().pop().expect("a summary").object;
    assert_eq!(summary["type"], "summary");
    assert_eq!(
        (number(&summary["failed"]), number(&summary["resent"])),
        (0, 0),
        "{summary}"
    );
    let expected = serde_json::json!([{
        "client": "spiffe://cluster.local/ns/default/sa/front-tomcat",
        "server": "spiffe://cluster.local/ns/default/sa/bill-service",
    }]);
    assert_eq!(summary["identities"], expected);
    let left: Vec<_> = processes.iter().filter(|(_, pid)| lives(**pid)).collect();
    assert!(left.is_empty(), "still there: {left:?}");
    assert!(!folder.exists(), "{} is still there", folder.display());
}

#[test]
fn a_broken_edit_is_refused_with_its_place_and_the_old_weights_stay() {
    let session = Session::start(&[]);
    let text = fs::read_to_string(session.file()).expect("the file");
    let line = 1 + text
        .lines()
        .position(|line| line.contains("weight: 90"))
        .expect("a weight");
    let check = |from: &str, to: &str, expected: &[&str]| {
        let since = Instant::now();
        session.edit(&[(from, to)]);
        let said = session.event(since, "refused", expected);
        let last = session
            .wait("a second with a refused file", |object| object["refused"] == true)
            .object;
        assert_eq!(last["weights"], serde_json::json!({"v1": 90, "v2": 10}), "{said}");
        fs::write(session.file(), &text).expect("the file can be written");
        session.event(since, "served", &["v1 90", "v2 10", "nothing differs"]);
    };
    check(
        "weight: 90",
        "weihgt: 90",
        &[&format!(":{line}:13: "), "did you mean `weight`?"],
    );
    check("weight: 90", "weight: 90: 1", &[&format!(":{line}:")]);
    check("weight: 90", "weight: many", &[&format!(":{line}:21: ")]);

    let since = Instant::now();
    fs::remove_file(session.file()).expect("the file is there");
    session.event(since, "refused", &["bill-service.yaml: No such file"]);
    // As editors write: a new file takes the name.
    let new = session.file().with_extension("new");
    fs::write(&new, text.replace("weight: 90", "weight: 30")).expect("a file");
    fs::rename(&new, session.file()).expect("a rename");
    session.event(since, "served", &["v1 30", "v2 10, served"]);
    assert_eq!(failed(&objects(&session)), 0);
}

#[test]
fn what_is_killed_shows_as_its_users_see_it_and_comes_back() {
    let session = Session::start(&[]);
    let check = |process: &str, failure: &[&str]| {
        let since = Instant::now();
        until("processes", PATIENCE, || {
            session.processes().contains_key(process).then_some(())
        });
        send(session.processes()[process], Signal::SIGKILL);
        session.event(
            since,
            "ended",
            &[process, "was killed (SIGKILL)", "starts again in 5 s"],
        );
        let is_seen = |object: &Value| {
            let kinds = object["failures"].as_object().cloned().unwrap_or_default();
            kinds
                .keys()
                .any(|kind| failure.iter().all(|part| kind.contains(part)))
        };
        session.wait(&format!("{failure:?}"), |object| {
            object["type"] == "second" && is_seen(object)
        });
        session.event(since, "restarted", &[process, "runs again"]);
        until("a good second again", PATIENCE, || {
            let second = session.seconds().pop()?;
            let is_good = number(&second.object["failed"]) == 0 && number(&second.object["requests"]) > 50;
            (is_good && second.at > since).then_some(())
        });
    };
    check("bill-v1 sidecar", &["503 (front: ", "UF"]);
    check("bill-v1 app", &["503 (front: via_upstream, bill-v1: ", "UF"]);
    check("front sidecar", &["no answer: Connection refused"]);
}

#[test]
fn a_stranger_to_the_mesh_gets_an_answer_and_not_a_loop() {
    let session = Session::start(&[]);
    let address = session.start["bill_service"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("an address");
    let check = |host: &str, status: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host}: {answer}"
        );
    };
    check("bill-service:9999", "200");
    check(&address.to_string(), "200");
    // Passed through to where it was going, which is the sidecar: nobody redirected it.
    check("example.com", "503");
}

#[test]
fn a_signal_ends_it_in_order_and_its_death_ends_the_children() {
    let check = |signal: Signal, expected: Option<i32>| {
        let mut session = Session::start(&[]);
        session.wait("a second", |object| object["type"] == "second");
        let processes = session.processes();
        session.signal(signal);
        assert_eq!(session.end().code(), expected, "{signal}");
        let gone = || processes.values().all(|pid| !lives(*pid)).then_some(());
        until(&format!("no process left after {signal}"), PATIENCE, gone);
        assert_eq!(processes.len(), 6);
        let folder = session.file().parent().expect("a folder").to_owned();
        assert_eq!(folder.exists(), expected.is_none(), "{signal}");
        // What is left after SIGKILL is ours to remove.
        let _ = fs::remove_dir_all(folder);
    };
    check(Signal::SIGINT, Some(0));
    check(Signal::SIGTERM, Some(0));
    check(Signal::SIGHUP, Some(0));
    check(Signal::SIGKILL, None);
}

#[test]
fn taken_ports_are_replaced_and_named() {
    let wanted = [
        ("front admin", "127.20.0.11:15000"),
        ("front outbound to bill-service", "127.20.0.11:9999"),
        ("front virtualOutbound", "127.20.0.11:15001"),
        ("bill-v1 inbound", "127.20.0.21:9999"),
        ("bill-v2 app", "127.20.1.22:9999"),
        ("control plane", "127.0.0.1:15010"),
    ];
    // Taken by a stranger is as good.
    let _taken = wanted.map(|(_, address)| TcpListener::bind(address));
    let mut session = Session::start(&["--duration", "4"]);
    assert_eq!(session.end().code(), Some(0));
    let replaced = session.start["replaced"].as_array().cloned().unwrap_or_default();
    assert_eq!(replaced.len(), wanted.len(), "{replaced:?}");
    for (what, address) in wanted {
        let found = replaced
            .iter()
            .find(|it| it["what"] == what)
            .unwrap_or_else(|| panic!("{what}: {replaced:?}"));
        assert_eq!(found["wanted"], address);
        assert_ne!(found["instead"], address);
    }
    let summary = session.printed().pop().expect("a summary").object;
    assert_eq!(number(&summary["failed"]), 0, "{summary}");
    for version in ["v1", "v2"] {
        assert!(number(&summary["versions"][version]["requests"]) > 0, "{summary}");
    }
}

#[test]
fn nothing_needs_ipv6() {
    let session = Session::start(&[]);
    session.wait("a second", |object| object["type"] == "second");
    let ids = session
        .processes()
        .into_values()
        .chain([i32::try_from(session.id()).expect("an id")]);
    for id in ids {
        let mine: Vec<String> = fs::read_dir(format!("/proc/{id}/fd"))
            .expect("a running process")
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter_map(|target| {
                target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')
                    .map(str::to_owned)
            })
            .collect();
        assert!(!mine.is_empty(), "process {id} has sockets");
        for table in ["tcp6", "udp6"] {
            // Without IPv6 in the kernel there is no such table.
            let sockets = fs::read_to_string(format!("/proc/{id}/net/{table}")).unwrap_or_default();
            let found = sockets.lines().find(|line| {
                line.split_whitespace()
                    .nth(9)
                    .is_some_and(|inode| mine.iter().any(|it| it == inode))
            });
            assert_eq!(found, None, "process {id} has a socket in {table}");
        }
    }
}
