//! The repository as files: what the tests that read the source tree share.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One file that is, or is about to be, under version control.
pub(crate) struct SourceFile {
    /// Relative to the root of the repository, `/` as separator.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the repository: the folder above this package.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies one folder below the root")
        .to_path_buf()
}

/// Every file that git tracks or would track; what `.gitignore` names is left out.
///
/// Untracked files count too, so that a mistake shows before the commit and not after it.
pub(crate) fn files() -> Vec<String> {
    let output = Command::new("git")
        // A checkout that belongs to another user (a mounted volume in CI) is read all the same.
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git must be installed: the tests ask it which files belong to the repository");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).expect("file names in this repository are UTF-8");
    let mut files: Vec<String> = names.split_terminator('\0').map(str::to_owned).collect();
    files.retain(|name| root().join(name).is_file());
    files.sort();
    files.dedup();
    files
}

/// Every text file whose name passes `wanted`; a file that is not UTF-8 is binary and left out.
pub(crate) fn texts(wanted: impl Fn(&str) -> bool) -> Vec<SourceFile> {
    let read = |path: String| {
        let text = std::fs::read_to_string(root().join(&path)).ok()?;
        Some(SourceFile { path, text })
    };
    files()
        .into_iter()
        .filter(|path| wanted(path))
        .filter_map(read)
        .collect()
}

/// Fails with all of `violations`, one a line.
#[track_caller]
pub(crate) fn assert_none(violations: &[String], rule: &str) {
    assert!(
        violations.is_empty(),
        "{rule}: {} violations\n{}\n",
        violations.len(),
        violations.join("\n")
    );
}
