//! The last good configuration on disk, for a start without a control plane. Opt-in (`--config-snapshot`).
//!
//! Only what came over CDS, EDS, LDS, RDS and ECDS is written: no secret, and no resource with a private key in it. The file is replaced as a
//! whole, readable by its owner only, and belongs to one node. One that is too old, damaged or of another node is named and not used.
//! The control plane is told which clusters and listeners are in force from it and says what of them is gone: a delta server by
//! `initial_resource_versions` (of a stream that begins anew if it has asked already), any other by what its whole set lacks. Endpoints
//! and routes are asked for by name, and stay until they come.
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher as _;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use twox_hash::XxHash64;

/// First bytes of the file; another format has another number.
const MAGIC: &[u8] = b"outrigger configuration snapshot 1\n";
/// A clock that was set back by less does not matter.
const FROM_THE_FUTURE: Duration = Duration::from_secs(300);
/// Nothing in a file is longer.
const MAX_BYTES: u32 = 1 << 30;

/// Where it is, and how old it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotOptions {
    /// `--config-snapshot`.
    pub(crate) path: PathBuf,
    /// `--config-snapshot-max-age-s`.
    pub(crate) max_age: Duration,
}

/// Resources of all types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Whose configuration it is: `node.id`.
    pub(super) node: String,
    /// When it was written.
    pub(super) saved: SystemTime,
    /// Type by type, in the order in which they are to be applied.
    pub(super) types: Vec<Resources>,
}

/// Resources of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) type_url: String,
    pub(super) version: String,
    /// Names and encoded messages.
    pub(super) resources: Vec<(String, Bytes)>,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// There is none, or it cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not one, or not whole.
    #[error("{path}: is damaged ({what}); delete it, the next good configuration replaces it")]
    Damaged {
        /// The file.
        path: String,
        /// How it shows.
        what: &'static str,
    },
    /// Too old.
    #[error("{path}: is {age_s} s old, and --config-snapshot-max-age-s allows {allowed_s} s")]
    TooOld {
        /// The file.
        path: String,
        /// Its age.
        age_s: u64,
        /// What is allowed.
        allowed_s: u64,
    },
    /// Of another proxy.
    #[error("{path}: is the configuration of node {theirs:?}, this is {ours:?}")]
    OtherNode {
        /// The file.
        path: String,
        /// Whose it is.
        theirs: String,
        /// Who asks.
        ours: String,
    },
}

impl Snapshot {
    /// Replaces the file: written beside it, flushed to the disk, renamed. Blocks.
    ///
    /// # Errors
    /// What the system said; the file that was there stays.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let written = self.write_to(&beside).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // Nobody reads what is half written.
            let _ = fs::remove_file(&beside);
            return written;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        // One that a killed process left may belong to anybody.
        let _ = fs::remove_file(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut out = Summed::new(BufWriter::new(file));
        out.write_all(MAGIC)?;
        let seconds = self
            .saved
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        out.write_all(&seconds.to_le_bytes())?;
        put(&mut out, self.node.as_bytes())?;
        put_count(&mut out, self.types.len())?;
        for Resources {
            type_url,
            version,
            resources,
        } in &self.types
        {
            put(&mut out, type_url.as_bytes())?;
            put(&mut out, version.as_bytes())?;
            put_count(&mut out, resources.len())?;
            for (name, bytes) in resources {
                put(&mut out, name.as_bytes())?;
                put(&mut out, bytes)?;
            }
        }
        let sum = out.sum.finish();
        let mut file = out.inner;
        file.write_all(&sum.to_le_bytes())?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    }

    /// Reads the file of `options` if it is of `node` and not too old. Blocks.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn read(options: &SnapshotOptions, node: &str) -> Result<Self, SnapshotError> {
        let path = || options.path.display().to_string();
        let file =
            File::open(&options.path).map_err(|source| SnapshotError::Read { path: path(), source })?;
        let snapshot = Self::read_from(BufReader::new(file)).map_err(|fault| match fault {
            Fault::Damaged(what) => SnapshotError::Damaged { path: path(), what },
            Fault::Read(source) => SnapshotError::Read { path: path(), source },
        })?;
        if snapshot.node != node {
            return Err(SnapshotError::OtherNode {
                path: path(),
                theirs: snapshot.node,
                ours: node.to_owned(),
            });
        }
        let age = match snapshot.saved.elapsed() {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= FROM_THE_FUTURE => Duration::ZERO,
            Err(_) => {
                let what = "it was written in the future";
                return Err(SnapshotError::Damaged { path: path(), what });
            }
        };
        if age > options.max_age {
            return Err(SnapshotError::TooOld {
                path: path(),
                age_s: age.as_secs(),
                allowed_s: options.max_age.as_secs(),
            });
        }
        Ok(snapshot)
    }

    fn read_from(file: impl Read) -> Result<Self, Fault> {
        let mut input = Summed::new(file);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(Fault::Damaged("another format"));
        }
        let mut seconds = [0; 8];
        input.read_exact(&mut seconds)?;
        let saved = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_le_bytes(seconds)));
        let node = take_text(&mut input)?;
        let mut types = Vec::new();
        for _ in 0..take_count(&mut input)? {
            let (type_url, version) = (take_text(&mut input)?, take_text(&mut input)?);
            let mut resources = Vec::new();
            for _ in 0..take_count(&mut input)? {
                resources.push((take_text(&mut input)?, Bytes::from(take(&mut input)?)));
            }
            types.push(Resources {
                type_url,
                version,
                resources,
            });
        }
        let expected = input.sum.finish();
        let mut sum = [0; 8];
        input.inner.read_exact(&mut sum)?;
        if u64::from_le_bytes(sum) != expected {
            return Err(Fault::Damaged("its checksum is another"));
        }
        if input.inner.read(&mut [0])? != 0 {
            return Err(Fault::Damaged("something follows its end"));
        }
        Ok(Self {
            node,
            saved: saved.ok_or(Fault::Damaged("no time"))?,
            types,
        })
    }
}

enum Fault {
    Read(io::Error),
    Damaged(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too soon"),
            _ => Self::Read(error),
        }
    }
}

/// Sums up what goes through.
struct Summed<T> {
    inner: T,
    sum: XxHash64,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        let sum = XxHash64::with_seed(0);
        Self { inner, sum }
    }
}

impl<T: Write> Summed<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.write(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Summed<T> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.sum.write(bytes);
        Ok(())
    }
}

fn put<T: Write>(out: &mut Summed<T>, bytes: &[u8]) -> io::Result<()> {
    put_count(out, bytes.len())?;
    out.write_all(bytes)
}

fn put_count<T: Write>(out: &mut Summed<T>, count: usize) -> io::Result<()> {
    let count = u32::try_from(count).ok().filter(|count| *count <= MAX_BYTES);
    let count = count.ok_or_else(|| io::Error::other("the configuration is too large for a snapshot"))?;
    out.write_all(&count.to_le_bytes())
}

fn take_count<T: Read>(input: &mut Summed<T>) -> Result<u32, Fault> {
    let mut count = [0; 4];
    input.read_exact(&mut count)?;
    Ok(u32::from_le_bytes(count))
}

fn take<T: Read>(input: &mut Summed<T>) -> Result<Vec<u8>, Fault> {
    let length = take_count(input)?;
    if length > MAX_BYTES {
        return Err(Fault::Damaged("a length without sense"));
    }
    // A damaged length takes no more memory than the file has bytes.
    let mut bytes = Vec::new();
    let mut limited = (&mut input.inner).take(length.into());
    limited.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != u64::from(length) {
        return Err(Fault::Damaged("it ends too soon"));
    }
    input.sum.write(&bytes);
    Ok(bytes)
}

fn take_text<T: Read>(input: &mut Summed<T>) -> Result<String, Fault> {
    String::from_utf8(take(input)?).map_err(|_| Fault::Damaged("a name that is no text"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn snapshot() -> Snapshot {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Snapshot {
            node: "sidecar~10.0.0.1~a.b~b.svc".to_owned(),
            saved: UNIX_EPOCH + Duration::from_secs(seconds - 100),
            types: vec![Resources {
                type_url: "t".to_owned(),
                version: "7".to_owned(),
                resources: vec![
                    ("one".to_owned(), Bytes::from_static(b"\x00\x01")),
                    ("two".to_owned(), Bytes::new()),
                ],
            }],
        }
    }

    fn written() -> (tempfile::TempDir, SnapshotOptions) {
        let folder = tempfile::tempdir().unwrap();
        let options = SnapshotOptions {
            path: folder.path().join("snapshot"),
            max_age: Duration::from_secs(1000),
        };
        snapshot().write(&options.path).unwrap();
        (folder, options)
    }

    /// The complaint about the file as it is.
    fn complaint(options: &SnapshotOptions, node: &str) -> String {
        Snapshot::read(options, node).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may_read_it() {
        let (folder, options) = written();
        assert_eq!(Snapshot::read(&options, &snapshot().node).unwrap(), snapshot());
        let mode = fs::metadata(&options.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn one_too_old_or_of_another_node_is_named() {
        let (_folder, mut options) = written();
        assert!(complaint(&options, "x").contains("is the configuration of node"));
        options.max_age = Duration::from_secs(50);
        let complaint = complaint(&options, &snapshot().node);
        assert!(
            complaint.contains("s old") && complaint.contains("allows 50 s"),
            "{complaint}"
        );
    }

    #[test]
    fn every_damage_is_noticed() {
        let (_folder, options) = written();
        let whole = fs::read(&options.path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            fs::write(&options.path, damaged).unwrap();
            let complaint = complaint(&options, &snapshot().node);
            assert!(complaint.contains("is damaged"), "byte {place}: {complaint}");
            fs::write(&options.path, &whole[..place]).unwrap();
            assert!(
                Snapshot::read(&options, &snapshot().node).is_err(),
                "{place} bytes"
            );
        }
        fs::write(&options.path, [whole.as_slice(), b"x"].concat()).unwrap();
        assert!(complaint(&options, &snapshot().node).contains("follows its end"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_keeps_the_old_one() {
        let (folder, options) = written();
        let missing = folder.path().join("missing/snapshot");
        assert!(snapshot().write(&missing).is_err());
        assert!(Snapshot::read(&options, &snapshot().node).is_ok());
    }
}
