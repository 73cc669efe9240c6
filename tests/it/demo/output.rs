//! What the demo writes for people: refusals to begin, lines without a terminal, the table on one.

use std::fs;
use std::process::{Command, Output, Stdio};

use super::session::command;

/// The demo, run to its end.
fn run(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = command(arguments);
    prepare(&mut command);
    command.stdout(Stdio::piped()).output().expect("the demo runs")
}

#[test]
fn what_it_cannot_begin_with_is_said_with_status_1() {
    let folder = e2e::tools::open_folder("outrigger-e2e-demo-");
    let file = folder.path().join("broken.yaml");
    fs::write(
        &file,
        "resources:\n- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  naame: x\n",
    )
    .expect("a file");
    let file = file.to_str().expect("UTF-8");
    let check = |arguments: &[&str], tmpdir: &str, expected: &[&str]| {
        let output = run(arguments, |command| {
            command.env("TMPDIR", tmpdir);
        });
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?} in {tmpdir}: {error}"
        );
        assert!(
            error.starts_with("outrigger: ") && error.lines().count() == 1,
            "{error}"
        );
        assert!(
            expected.iter().all(|part| error.contains(part)),
            "{error:?} lacks one of {expected:?}"
        );
        assert!(output.stdout.is_empty());
    };
    check(
        &[],
        "/proc/self",
        &["cannot make a directory in /proc/self", "TMPDIR"],
    );
    check(
        &[],
        "/nowhere/at/all",
        &["cannot make a directory in /nowhere/at/all"],
    );
    let long = folder.path().join("x".repeat(100));
    fs::create_dir(&long).expect("a folder");
    fs::set_permissions(&long, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    check(
        &[],
        long.to_str().expect("UTF-8"),
        &["bytes long", "shorter directory"],
    );
    check(
        &["--config", file],
        "/tmp",
        &["broken.yaml:3:3: resources[0].naame", "did you mean `name`?"],
    );
    check(
        &["--config", "/no/such/file"],
        "/tmp",
        &["cannot read /no/such/file", "without --config"],
    );
    check(&["--config", "/dev/null"], "/tmp", &["not a regular file"]);
}

#[test]
fn without_a_terminal_there_is_a_line_a_second_within_80_columns() {
    let output = run(&["--duration", "3"], |_| {});
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.contains('\x1b'), "{text}");
    check_width(&text);
    for second in 1..=2 {
        let begin = format!("    {second} s  ");
        assert!(
            text.lines()
                .any(|line| line.starts_with(&begin) && line.contains("requests")),
            "{text}"
        );
    }
    assert!(text.contains("0 failed"), "{text}");
}

#[test]
fn a_table_is_drawn_in_place_and_stays_within_the_terminal() {
    let check = |columns: u16| {
        let size = nix::pty::Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = nix::pty::openpty(&size, None).expect("a terminal");
        let mut command = command(&["--duration", "4"]);
        command.env("TERM", "xterm").stdout(terminal.slave);
        let mut child = command.spawn().expect("the demo starts");
        drop(command);
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        // Ends with an error when nobody has the other side any more.
        while let Ok(length @ 1..) = nix::unistd::read(&terminal.master, &mut chunk) {
            text.extend_from_slice(&chunk[..length]);
        }
        assert_eq!(child.wait().expect("our child").code(), Some(0));
        let text = String::from_utf8(text).expect("UTF-8").replace('\r', "");
        assert!(text.contains("A\x1b[J"), "drawn in place: {text}");
        let frames: Vec<&str> = text.split("\x1b[J").skip(1).collect();
        let table = frames
            .last()
            .expect("a table")
            .split("\n\n")
            .collect::<Vec<_>>()
            .join("\n");
        let drawn = table.lines().take_while(|line| !line.contains("requests in"));
        let widest = drawn.map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= columns.into(), "{widest} of {columns}: {table}");
        if columns >= 80 {
            text.split("\x1b[J")
                .map(|drawn| drawn.split('\x1b').next().unwrap_or_default())
                .for_each(check_width);
        }
    };
    check(80);
    check(40);
}

/// No line over 80 columns, but for a word that is longer.
fn check_width(text: &str) {
    for line in text.lines() {
        let is_one_word = line.trim().split(' ').count() == 1;
        assert!(
            line.chars().count() <= 80 || is_one_word,
            "{} columns: {line}",
            line.chars().count()
        );
    }
}
