//! What the figures were measured on, and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::affinity::Cores;

/// Name and value, for the head of the report.
pub fn describe(cores: Cores, programs: &[(&str, &Path)]) -> Vec<(String, String)> {
    let mut rows = vec![
        ("processor".to_owned(), processor()),
        (
            "cores".to_owned(),
            format!("proxies on {}, load and backends on {}", cores.proxy, cores.load),
        ),
        ("memory".to_owned(), first_line("/proc/meminfo")),
        ("kernel".to_owned(), first_line("/proc/sys/kernel/osrelease")),
        (
            "congestion control".to_owned(),
            first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        ),
        (
            "huge pages".to_owned(),
            first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        ),
        ("load average before".to_owned(), first_line("/proc/loadavg")),
        ("commit".to_owned(), commit()),
    ];
    for (name, path) in programs {
        rows.push(((*name).to_owned(), version(path)));
    }
    rows
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{} × {}",
        count,
        field("model name").unwrap_or_else(|| "unknown".to_owned())
    )
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    text.lines().next().unwrap_or_default().to_owned()
}

fn commit() -> String {
    let run = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(e2e::tools::repository())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed =
        run(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    let commit = run(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed {
        format!("{commit}, with uncommitted changes")
    } else {
        commit
    }
}

/// What the program says of itself; nginx says it on standard error, and all but Envoy and outrigger with `-v`.
fn version(program: &Path) -> String {
    let flag = if program.ends_with("nginx") || program.ends_with("haproxy") {
        "-v"
    } else {
        "--version"
    };
    match Command::new(program).arg(flag).output() {
        Err(error) => error.to_string(),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default()
                .trim();
            // Envoy puts its path before it.
            line.rsplit("version: ").next().unwrap_or(line).to_owned()
        }
    }
}
