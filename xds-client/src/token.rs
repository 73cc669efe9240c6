//! A bearer token that somebody else keeps fresh in a file.
//!
//! Read for each call, so that a rotated token is used from the next call on. Source: Istio's agent reads its
//! `istio-token` per call as well, and goes on without a header if there is none (contract of the certificate authority:
//! a client certificate may be enough).

use std::io::Read as _;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};
use tracing::warn;

/// What is longer is no token.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// The path of a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile(PathBuf);

impl TokenFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        TokenFile(path)
    }

    /// The value of the `authorization` header now; `None` if the file is missing, empty or not a token, which the
    /// control plane then judges.
    pub(crate) fn header(&self) -> Option<MetadataValue<Ascii>> {
        let path = &self.0;
        match read(path) {
            Ok(None) => {
                warn!(token = %path.display(), "the bearer token is empty; asking without it");
                None
            }
            Ok(Some(value)) => Some(value),
            Err(reason) => {
                warn!(token = %path.display(), reason, "the bearer token cannot be read; asking without it");
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<MetadataValue<Ascii>>, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut file = file.take(MAX_TOKEN_BYTES + 1);
    let length = file.read_to_string(&mut text).map_err(|e| e.to_string())?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_TOKEN_BYTES) {
        return Err(format!("longer than {MAX_TOKEN_BYTES} bytes"));
    }
    let token = text.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let value: Result<MetadataValue<Ascii>, _> = format!("Bearer {token}").parse();
    let mut value = value.map_err(|_| "has characters that a header cannot have".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_what_the_file_holds_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("istio-token");
        let file = TokenFile::new(path.clone());
        let header = || file.header().map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header(), None, "missing");
        let check = |content: &[u8], expected: Option<&str>| {
            std::fs::write(&path, content).unwrap();
            assert_eq!(header().as_deref(), expected);
        };
        check(b"one\n", Some("Bearer one"));
        check(b"two", Some("Bearer two"));
        check(b" \n", None);
        check(b"a\nb", None);
        check(&[0xff], None);
        check(&vec![b'x'; 70_000], None);
    }
}
