//! Files and standard input to bytes.
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use outrigger_model::validate::Input;

/// As for a bootstrap: larger files are refused, a device has no end.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The files that can be read, and for the others name and reason.
pub(super) fn all(paths: &[PathBuf]) -> (Vec<Input>, Vec<(String, String)>) {
    let mut inputs = Vec::new();
    let mut unread = Vec::new();
    let mut has_read_stdin = false;
    for path in paths {
        let name = path.display().to_string();
        let read = match name.as_str() {
            "-" if std::mem::replace(&mut has_read_stdin, true) => {
                Err(io::Error::other("standard input can be read once; give - once"))
            }
            "-" => read(io::stdin().lock()),
            _ => file(path),
        };
        match read {
            Ok(bytes) => inputs.push(Input { name, bytes }),
            Err(error) => unread.push((name, error.to_string())),
        }
    }
    (inputs, unread)
}

fn file(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("is a directory; give the files in it"));
    }
    read(File::open(path)?)
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let reason = format!("larger than {} MiB; is this configuration?", MAX_FILE_BYTES >> 20);
        return Err(io::Error::other(reason));
    }
    Ok(bytes)
}
