//! Notices that a file has changed, however an editor writes it: in place, by a new file of that name, or in pieces.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file is read. A change is believed when two readings agree, so it is seen within twice this.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);
/// Larger files are refused unread.
const MAX_BYTES: u64 = 4 << 20;

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file with this text.
    Text(Vec<u8>),
    /// Nothing that can be read, and why.
    Unreadable(String),
}

/// One watched file.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    reported: Content,
    last: Content,
}

/// Reads a whole file.
///
/// # Errors
/// When it is no file, unreadable, or larger than 4 MiB.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened: a pipe would block.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        let reason = format!("larger than {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

impl Watch {
    /// Watches `path`, whose text is known.
    pub(super) fn new(path: PathBuf, text: Vec<u8>) -> Self {
        Self {
            path,
            reported: Content::Text(text.clone()),
            last: Content::Text(text),
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The new content, when the file has changed and stayed so since the last call. Call it every [`INTERVAL`].
    pub(super) fn poll(&mut self) -> Option<Content> {
        let now = match read(&self.path) {
            Ok(text) => Content::Text(text),
            Err(error) => Content::Unreadable(error.to_string()),
        };
        let is_settled = now == self.last;
        self.last = now;
        if !is_settled || self.last == self.reported {
            return None;
        }
        self.reported = self.last.clone();
        Some(self.last.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        path: PathBuf,
        watch: Watch,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "old").unwrap();
        let watch = Watch::new(path.clone(), b"old".to_vec());
        Scene { folder, path, watch }
    }

    fn check(scene: &mut Scene, expected: Option<&str>) {
        let first = scene.watch.poll();
        assert_eq!(first, None, "one reading is not believed");
        let expected = expected.map(|text| Content::Text(text.as_bytes().to_vec()));
        assert_eq!(scene.watch.poll(), expected);
        assert_eq!(scene.watch.poll(), None, "said once");
    }

    #[test]
    fn a_file_that_is_written_anew_is_seen_once() {
        let mut scene = scene();
        check(&mut scene, None);
        fs::write(&scene.path, "new").unwrap();
        check(&mut scene, Some("new"));
    }

    #[test]
    fn a_file_that_another_one_replaces_is_seen() {
        let mut scene = scene();
        let other = scene.folder.path().join("f.swp");
        fs::write(&other, "new").unwrap();
        fs::rename(&other, &scene.path).unwrap();
        check(&mut scene, Some("new"));
    }

    #[test]
    fn a_file_that_is_still_being_written_is_waited_for() {
        let mut scene = scene();
        for text in ["", "n", "ne"] {
            fs::write(&scene.path, text).unwrap();
            assert_eq!(scene.watch.poll(), None, "{text:?}");
        }
        fs::write(&scene.path, "new").unwrap();
        check(&mut scene, Some("new"));
    }

    #[test]
    fn a_file_that_is_gone_or_no_file_is_said_and_its_return_too() {
        let mut scene = scene();
        fs::remove_file(&scene.path).unwrap();
        assert_eq!(scene.watch.poll(), None);
        assert!(matches!(scene.watch.poll(), Some(Content::Unreadable(_))));
        fs::create_dir(&scene.path).unwrap();
        assert_eq!(scene.watch.poll(), None);
        assert_eq!(
            scene.watch.poll(),
            Some(Content::Unreadable("not a regular file".to_owned()))
        );
        fs::remove_dir(&scene.path).unwrap();
        fs::write(&scene.path, "old").unwrap();
        check(&mut scene, Some("old"));
    }
}
