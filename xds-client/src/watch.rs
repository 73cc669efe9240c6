//! What a file looked like when it was last read, and whether it looks otherwise now.
//!
//! No inotify: a watch belongs to an inode, and what has to be seen is that a path leads to another one (the kubelet
//! renames the folder behind a link, `mv` renames over the file, an overlay or network file system tells nothing). That would take
//! a watch on every folder of the path, and still a timer for what is half written. One `stat` a look is cheap.
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What tells one content from another; symbolic links are followed. `None`: there is no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Set by the system alone: also sees a rename over the path, changed permissions, and a file whose time was set back.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let stamp = |metadata: Metadata| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        std::fs::metadata(path).ok().map(stamp)
    }
}

/// Files that something was made of, to be looked at from time to time.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// The last try, unless it succeeded: `None` before the first, else its complaint.
    failed: Option<Option<String>>,
}

impl FileWatch {
    /// Not read yet.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            files: paths.into_iter().map(|path| (path, None)).collect(),
            failed: Some(None),
        }
    }

    /// There is no file that could change.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Something changed since [`Self::begin`], or the last try failed: a file can become readable without a trace in its stamp, and a
    /// second write within one tick of the file system's clock leaves none either.
    pub fn is_due(&self) -> bool {
        self.failed.is_some() || self.files.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Call before reading: what changes while it is read is then seen next time.
    pub fn begin(&mut self) {
        for (path, stamp) in &mut self.files {
            *stamp = Stamp::of(path);
        }
    }

    /// Notes what came of reading. True: a complaint that is not the one before.
    pub fn end(&mut self, complaint: Option<&str>) -> bool {
        let Some(complaint) = complaint else {
            self.failed = None;
            return false;
        };
        let is_new = self.failed.as_ref().and_then(Option::as_deref) != Some(complaint);
        self.failed = Some(Some(complaint.to_owned()));
        is_new
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(watch: &mut FileWatch) {
        watch.begin();
        watch.end(None);
    }

    #[test]
    fn every_way_to_change_a_file_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "1").unwrap();
        let mut watch = FileWatch::new([at("file")]);
        let mut check = |what: &str, change: &dyn Fn()| {
            read(&mut watch);
            assert!(!watch.is_due(), "before {what}");
            change();
            assert!(watch.is_due(), "{what}");
            read(&mut watch);
            assert!(!watch.is_due(), "after {what}");
        };
        check("a write in place", &|| fs::write(at("file"), "22").unwrap());
        check("a rename over it, of the same size", &|| {
            fs::write(at("new"), "33").unwrap();
            fs::rename(at("new"), at("file")).unwrap();
        });
        check("removal", &|| fs::remove_file(at("file")).unwrap());
        check("appearance", &|| fs::write(at("file"), "44").unwrap());
    }

    #[test]
    fn a_swap_of_the_folder_behind_a_link_is_seen() {
        // As the kubelet does: key -> ..data/key, ..data -> a folder, and ..data is renamed over.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("key"), version).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        let mut watch = FileWatch::new([at("key")]);
        read(&mut watch);
        assert!(!watch.is_due());
        symlink("v2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert!(watch.is_due());
    }

    #[test]
    fn a_failure_is_tried_again_and_told_once() {
        let mut watch = FileWatch::new([PathBuf::from("/does/not/exist")]);
        assert!(watch.is_due(), "never read");
        watch.begin();
        assert!(watch.end(Some("missing")));
        assert!(watch.is_due() && !watch.end(Some("missing")));
        assert!(watch.end(Some("something else")));
        assert!(!watch.end(None) && !watch.is_due());
        assert!(watch.end(Some("missing")), "it was good in between");
    }
}
