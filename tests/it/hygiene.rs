//! What must not stand in the repository: paths of one machine, package mirrors, links that lead nowhere.

use std::path::{Component, Path, PathBuf};

use crate::repo;

/// In two halves, so that this file does not contain what it looks for.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
    ("/tm", "p/w/", "a path of one machine"),
    ("/Use", "rs/", "a path of one machine"),
    (
        "index",
        "-url",
        "which package index to use is the machine's business",
    ),
    (
        "trusted",
        "-host",
        "which package index to use is the machine's business",
    ),
    ("py", "pi.org", "the host of a package registry"),
    ("files.python", "hosted", "the host of a package registry"),
    ("static.crates", ".io", "the host of a package registry"),
    ("index.crates", ".io", "the host of a package registry"),
    ("deb.debi", "an.org", "the host of a package registry"),
    ("proxy.gol", "ang.org", "the host of a package registry"),
    ("registry.np", "mjs.org", "the host of a package registry"),
    ("repo.mav", "en.apache.org", "the host of a package registry"),
    (
        "replace",
        "-with",
        "which package source to use is the machine's business",
    ),
];

#[test]
fn no_file_names_one_machine_or_a_package_mirror() {
    let mut violations = Vec::new();
    for file in repo::texts(|path| !path.ends_with(".lock")) {
        for (number, line) in file.text.lines().enumerate() {
            let found =
                forbidden_in(line).map(|(what, why)| format!("{}:{}: {what}: {why}", file.path, number + 1));
            violations.extend(found);
        }
    }
    repo::assert_none(&violations, "text that belongs to one machine");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut violations = Vec::new();
    for file in repo::texts(|path| path.ends_with(".md")) {
        for (line, target) in links(&file.text) {
            let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
            let is_there = inside(&folder.join(&target)).is_some_and(|path| repo::root().join(path).exists());
            if !is_there {
                violations.push(format!("{}:{line}: {target} does not exist", file.path));
            }
        }
    }
    repo::assert_none(&violations, "links");
}

#[test]
fn a_path_of_one_machine_is_found() {
    let check = |line: &str, expected: usize| assert_eq!(forbidden_in(line).count(), expected, "{line}");
    check(&["cd /wo", "rk/main"].concat(), 1);
    check(&["pip install --index", "-url x"].concat(), 1);
    check("make check", 0);
}

#[test]
fn links_are_found_inline_and_by_reference_but_not_in_code_or_to_the_web() {
    let check = |text: &str, expected: &[&str]| {
        let found: Vec<String> = links(text).into_iter().map(|(_, target)| target).collect();
        assert_eq!(found, expected, "{text}");
    };
    check(
        "see [a](docs/a.md#part) and [b](<b c.md> \"title\")",
        &["docs/a.md", "b c.md"],
    );
    check("[ref]: ../x.md", &["../x.md"]);
    check(
        "[web](https://example.com/x.md) [part](#part) [mail](mailto:a@b.c)",
        &[],
    );
    check("```\n[a](b.md)\n```\n`[a](c.md)` [d](d.md)", &["d.md"]);
}

fn forbidden_in(line: &str) -> impl Iterator<Item = (String, &'static str)> {
    let all = FORBIDDEN
        .iter()
        .map(|(head, tail, why)| (format!("{head}{tail}"), *why));
    all.filter(move |(pattern, _)| line.contains(pattern.as_str()))
}

/// Targets of links to files, with their lines; anchors are cut off, links to elsewhere left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code_block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code_block = !in_code_block;
        }
        if in_code_block {
            continue;
        }
        // Every second piece lies between backticks.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        let inline = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| link_target(rest.split(')').next()?));
        let reference = prose
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "));
        found.extend(
            inline
                .chain(reference.and_then(|(_, target)| link_target(target)))
                .map(|t| (number + 1, t)),
        );
    }
    found
}

fn link_target(written: &str) -> Option<String> {
    let written = written.trim();
    let target = match written.strip_prefix('<') {
        Some(rest) => rest.split('>').next()?,
        None => written.split_whitespace().next()?,
    };
    let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
    let path = target.split('#').next()?;
    (!is_elsewhere && !path.is_empty()).then(|| path.to_owned())
}

/// `path` without `.` and `..`; `None` if it leaves the repository.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}
