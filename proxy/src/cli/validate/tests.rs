//! The formats: what people read of each bad input (tests/golden/validate), and that JSON and SARIF say the same.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/validate")
}

fn outcome(inputs: Vec<Input>) -> Outcome {
    let report = validate(&Descriptors::full().unwrap(), &inputs);
    Outcome {
        inputs,
        unread: Vec::new(),
        report,
    }
}

fn input(name: &str, text: &str) -> Input {
    Input {
        name: name.to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}

/// Every input of the folder, in order.
fn bad_inputs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|extension| extension != "txt"))
        .collect();
    files.sort();
    files
}

/// `UPDATE=1` writes the expectations anew.
#[test]
fn what_people_read_of_each_bad_input_is_as_reviewed() {
    let files = bad_inputs();
    assert!(files.len() >= 25, "{} inputs", files.len());
    let mut different = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let outcome = outcome(vec![input(name, &std::fs::read_to_string(&file).unwrap())]);
        let text = format!("{}exit {}\n", text::render(&outcome), outcome.status());
        let expected = golden().join(format!("{name}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &text).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != text {
            different.push(format!("{name}:\n{text}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_format_tells_of_every_finding() {
    let outcome = outcome(vec![
        input("a b.yaml", "node: { id: a, cluster: b }\nadmn: {}\n"),
        input("/c.yaml", "name: x\n"),
    ]);
    let json: Value = serde_json::from_str(&json::render(&outcome)).unwrap();
    assert_eq!(
        (&json["valid"], &json["errors"], &json["version"]),
        (&false.into(), &2.into(), &1.into())
    );
    assert_eq!(
        json["findings"][0],
        serde_json::json!({
            "severity": "error", "rule": "field", "file": "a b.yaml", "line": 2, "column": 1, "resource": "bootstrap", "path": "admn",
            "message": "envoy.config.bootstrap.v3.Bootstrap has no such field", "did_you_mean": "admin",
        })
    );
    let sarif: Value = serde_json::from_str(&sarif::render(&outcome)).unwrap();
    let run = &sarif["runs"][0];
    assert_eq!(
        (&sarif["version"], &run["columnKind"]),
        (&"2.1.0".into(), &"unicodeCodePoints".into())
    );
    let result = &run["results"][0];
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b.yaml");
    assert_eq!(
        place["region"],
        serde_json::json!({"startLine": 2, "startColumn": 1})
    );
    assert_eq!(
        run["results"][1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "file:///c.yaml"
    );
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for result in run["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(["error", "warning", "note"].contains(&result["level"].as_str().unwrap()));
    }
}

#[test]
fn the_exit_status_tells_invalid_from_unreadable() {
    let check = |inputs: Vec<Input>, expected: u8| assert_eq!(outcome(inputs).status(), expected);
    let good = || input("a.yaml", "node: { id: a, cluster: b }\n");
    check(vec![good()], 0);
    check(vec![good(), input("b.yaml", "admn: {}")], 1);
    check(vec![input("b.yaml", "")], 1);
    let rubbish = Input {
        name: "c".to_owned(),
        bytes: vec![0xff, 0x00, 0x17],
    };
    check(vec![input("b.yaml", "admn: {}"), rubbish], 2);
    let warned = "\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: a\ntrack_timeout_budgets: true\nload_assignment: { cluster_name: a }\n";
    let warned = outcome(vec![input("w.yaml", warned)]);
    assert_eq!((warned.status(), warned.report.count(Severity::Warning)), (0, 1));
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_others_checked() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.yaml");
    std::fs::write(&good, "node: { id: a, cluster: b }\n").unwrap();
    let large = folder.path().join("large.yaml");
    std::fs::File::create(&large).unwrap().set_len(100 << 20).unwrap();
    let missing = folder.path().join("missing.yaml");
    let (inputs, unread) = read::all(&[folder.path().to_owned(), good, large, missing]);
    assert_eq!(inputs.len(), 1);
    let reasons: Vec<_> = unread.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "is a directory; give the files in it",
            "larger than 64 MiB; is this configuration?",
            "No such file or directory (os error 2)"
        ]
    );
    let outcome = Outcome {
        report: validate(&Descriptors::full().unwrap(), &inputs),
        inputs,
        unread,
    };
    assert_eq!(outcome.status(), 2);
    assert!(text::render(&outcome).ends_with("invalid: 3 errors, 0 warnings (4 files: 1 bootstrap)\n"));
}

#[test]
fn of_a_long_line_the_surroundings_are_shown() {
    let padding = " ".repeat(500);
    let text = format!("{{\"node\": {{\"id\": \"a\"}},{padding}\"admn\": {{}},{padding}\"admin\": {{}}}}");
    let shown = text::render(&outcome(vec![input("a.json", &text)]));
    let lines: Vec<_> = shown.lines().collect();
    let mark = lines.iter().position(|line| line.contains("^^^^^^")).unwrap();
    let column = lines[mark].chars().position(|letter| letter == '^').unwrap();
    let under: String = lines[mark - 1].chars().skip(column).take(6).collect();
    assert_eq!(under, "\"admn\"", "{shown}");
    assert!(lines[mark - 1].chars().count() < 120, "{shown}");
}
