//! Whose secret it is, and what files do to it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_model::bootstrap::{ConfigSource, GrpcServer};
use outrigger_model::secret::DataSource;
use outrigger_model::tls::{TlsVersion, ValidationSource};
use rcgen::{CertificateParams, KeyPair, SerialNumber};

use super::*;

/// PEM of a certificate with this serial number, and of its key.
fn issue(serial: u64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn inline(text: &str) -> DataSource {
    DataSource::Inline(text.as_bytes().to_vec())
}

fn pair(chain_pem: DataSource, key_pem: DataSource) -> TlsCertificate {
    TlsCertificate { chain_pem, key_pem }
}

fn secret(name: &str, certificate: TlsCertificate) -> Secret {
    Secret {
        name: name.to_owned(),
        kind: SecretKind::Certificate(certificate),
    }
}

fn reference(name: &str, server: Option<&ConfigServer>) -> SecretRef {
    let source = server.map(|server| ConfigSource {
        server: server.clone(),
        initial_fetch_timeout: Some(Duration::from_secs(15)),
    });
    SecretRef {
        name: name.to_owned(),
        source,
    }
}

fn listener(certificate: CertificateSource, validation: Option<ValidationSource>) -> DownstreamTls {
    DownstreamTls {
        common: CommonTls {
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            cipher_suites: Vec::new(),
            groups: Vec::new(),
            alpn_protocols: Vec::new(),
            certificate: Some(certificate),
            validation,
        },
        require_client_certificate: false,
    }
}

/// Serial number of the certificate that clients are shown.
fn shown(cell: &ServerTlsCell) -> Option<String> {
    cell.load_full().map(|context| context.local.serial_hex.clone())
}

/// A key pair in two files, written one after the other.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let new = self.at("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.at(name)).unwrap();
    }

    fn pair(&self) -> TlsCertificate {
        pair(
            DataSource::File(self.at("chain")),
            DataSource::File(self.at("key")),
        )
    }
}

/// Complaints of a look at the files.
fn reload(secrets: &mut Secrets) -> Vec<String> {
    let complaints = secrets
        .reload()
        .into_iter()
        .filter_map(|reloaded| reloaded.outcome.err());
    complaints.map(|error| error.to_string()).collect()
}

#[test]
fn one_name_of_two_servers_and_the_bootstrap_is_three_secrets() {
    let servers = [
        None,
        Some(ConfigServer::Ads),
        Some(ConfigServer::Grpc(GrpcServer::of("sds-grpc"))),
        Some(ConfigServer::Grpc(GrpcServer::of("other"))),
        Some(ConfigServer::Path("/s.yaml".into())),
    ];
    let mut secrets = Secrets::default();
    let cells: Vec<_> = servers
        .iter()
        .map(|server| {
            let source = CertificateSource::Sds(reference("default", server.as_ref()));
            secrets.server_cell(&listener(source, None))
        })
        .collect();
    for (index, server) in servers.iter().enumerate() {
        let (chain, key) = issue(index as u64 + 1);
        let secret = secret("default", pair(inline(&chain), inline(&key)));
        secrets.set(server.as_ref(), &secret).unwrap();
        for (other, cell) in cells.iter().enumerate() {
            let expected = (other <= index).then(|| format!("{:02x}", other + 1));
            assert_eq!(shown(cell), expected, "{server:?}");
        }
    }
}

#[test]
fn a_secret_of_another_server_warms_nobody() {
    let ads = ConfigServer::Ads;
    let mut secrets = Secrets::default();
    let (chain, key) = issue(1);
    let secret = secret("default", pair(inline(&chain), inline(&key)));
    let waiting = listener(CertificateSource::Sds(reference("default", Some(&ads))), None);
    let since = Instant::now();
    secrets
        .set(Some(&ConfigServer::Grpc(GrpcServer::of("sds"))), &secret)
        .unwrap();
    secrets.set(None, &secret).unwrap();
    assert!(!secrets.is_warm(&waiting.common, since));
    secrets.set(Some(&ads), &secret).unwrap();
    assert!(secrets.is_warm(&waiting.common, since));
}

/// The rotation of a pair in files, whoever names them: `name` gives the cell.
fn check_rotation(name: impl Fn(&mut Secrets, TlsCertificate) -> ServerTlsCell) {
    let (files, mut secrets) = (Files::new(), Secrets::default());
    let [(chain1, key1), (chain2, key2)] = [issue(1), issue(2)];
    files.put("chain", &chain1);
    files.put("key", &key1);
    let cell = name(&mut secrets, files.pair());
    assert_eq!(shown(&cell).as_deref(), Some("01"));
    let before = cell.load_full();
    assert!(reload(&mut secrets).is_empty());
    assert!(
        Arc::ptr_eq(&before.unwrap(), &cell.load_full().unwrap()),
        "nothing changed, nothing was built"
    );

    files.put("chain", &chain2);
    let half = reload(&mut secrets);
    assert_eq!(half.len(), 1, "{half:?}");
    assert!(
        half[0].ends_with("private key does not belong to the first certificate of the chain"),
        "{half:?}"
    );
    assert!(reload(&mut secrets).is_empty(), "said once");
    assert_eq!(shown(&cell).as_deref(), Some("01"));
    files.put("key", &key2);
    assert!(reload(&mut secrets).is_empty());
    assert_eq!(shown(&cell).as_deref(), Some("02"));

    fs::remove_file(files.at("key")).unwrap();
    let gone = reload(&mut secrets);
    let key = files.at("key").display().to_string();
    assert!(gone.len() == 1 && gone[0].contains(&key), "{gone:?}");
    assert_eq!(shown(&cell).as_deref(), Some("02"));
}

#[test]
fn a_pair_in_files_is_rotated_whoever_names_it() {
    for server in [
        None,
        Some(ConfigServer::Ads),
        Some(ConfigServer::Path("/s".into())),
    ] {
        check_rotation(|secrets, pair| {
            secrets.set(server.as_ref(), &secret("s", pair)).unwrap();
            let source = CertificateSource::Sds(reference("s", server.as_ref()));
            secrets.server_cell(&listener(source, None))
        });
    }
    check_rotation(|secrets, pair| secrets.server_cell(&listener(CertificateSource::Inline(pair), None)));
}

#[test]
fn a_broken_file_of_roots_does_not_hold_a_certificate_back() {
    let (files, mut secrets) = (Files::new(), Secrets::default());
    let ads = ConfigServer::Ads;
    files.put("roots", &issue(9).0);
    let validation = ValidationSource {
        sds: None,
        context: ValidationContext {
            trusted_ca: Some(DataSource::File(files.at("roots"))),
            ..ValidationContext::default()
        },
    };
    let source = CertificateSource::Sds(reference("s", Some(&ads)));
    let cell = secrets.server_cell(&listener(source, Some(validation)));
    for serial in [1, 2] {
        let (chain, key) = issue(serial);
        let secret = secret("s", pair(inline(&chain), inline(&key)));
        secrets.set(Some(&ads), &secret).unwrap();
        assert_eq!(shown(&cell), Some(format!("{serial:02x}")));
        files.put("roots", "garbage");
        assert_eq!(reload(&mut secrets).len(), usize::from(serial == 1));
    }
}

#[test]
fn a_secret_whose_files_come_later_is_taken_then() {
    let (files, mut secrets) = (Files::new(), Secrets::default());
    let ads = ConfigServer::Ads;
    let source = CertificateSource::Sds(reference("s", Some(&ads)));
    let cell = secrets.server_cell(&listener(source, None));
    let refused = secrets.set(Some(&ads), &secret("s", files.pair())).unwrap_err();
    let chain = files.at("chain").display().to_string();
    assert!(refused.to_string().contains(&chain), "{refused}");
    assert!(reload(&mut secrets).is_empty(), "said once");
    let (chain, key) = issue(1);
    files.put("chain", &chain);
    files.put("key", &key);
    let taken = secrets.reload();
    assert!(
        matches!(taken.as_slice(), [Reloaded { key: Some(_), outcome: Ok(Some(serial)) }] if serial == "01")
    );
    assert_eq!(shown(&cell).as_deref(), Some("01"));
}

#[test]
fn a_secret_that_no_longer_names_files_follows_none() {
    let (files, mut secrets) = (Files::new(), Secrets::default());
    let [(chain1, key1), (chain2, key2)] = [issue(1), issue(2)];
    files.put("chain", &chain1);
    files.put("key", &key1);
    secrets.set(None, &secret("s", files.pair())).unwrap();
    let cell = secrets.server_cell(&listener(CertificateSource::Sds(reference("s", None)), None));
    secrets
        .set(None, &secret("s", pair(inline(&chain2), inline(&key2))))
        .unwrap();
    files.put("key", &key1);
    assert!(secrets.reload().is_empty());
    assert_eq!(shown(&cell).as_deref(), Some("02"));
}

#[test]
fn files_of_a_listener_that_is_gone_are_forgotten() {
    let (files, mut secrets) = (Files::new(), Secrets::default());
    let cell = secrets.server_cell(&listener(CertificateSource::Inline(files.pair()), None));
    assert!(shown(&cell).is_none() && secrets.on_disk.len() == 1);
    drop(cell);
    secrets.reload();
    assert!(secrets.on_disk.is_empty());
}

#[test]
fn a_pipe_is_not_waited_for() {
    let kind = SecretKind::Certificate(pair(
        DataSource::File(Path::new("/dev/zero").to_owned()),
        inline(""),
    ));
    let error = Loaded::load("s", &kind).unwrap_err().to_string();
    assert_eq!(error, "secret `s`: read /dev/zero: not a regular file");
}

#[test]
fn roots_of_the_control_plane_are_trusted_besides_those_of_the_mesh_and_nowhere_else() {
    let server = ConfigServer::Ads;
    let mut secrets = Secrets::default();
    let common = |name: &str| {
        let validation = ValidationSource {
            context: ValidationContext::default(),
            sds: Some(reference(name, Some(&server))),
        };
        let certificate = CertificateSource::Sds(reference("own", Some(&server)));
        listener(certificate, Some(validation)).common
    };
    let (mesh, extra) = (issue(1).0, issue(2).0);
    let roots = |name: &str| Secret {
        name: name.to_owned(),
        kind: SecretKind::Validation(ValidationContext {
            trusted_ca: Some(inline(&mesh)),
            ..ValidationContext::default()
        }),
    };
    let trusted =
        |secrets: &Secrets, name: &str| match secrets.validation(&common(name)).unwrap().1.trusted_ca {
            Some(DataSource::Inline(pem)) => String::from_utf8(pem).unwrap(),
            other => panic!("{other:?}"),
        };
    secrets.trust_besides(extra.clone().into_bytes());
    for name in [ROOTS, "other"] {
        secrets.set(Some(&server), &roots(name)).unwrap();
    }
    assert!(trusted(&secrets, ROOTS).contains(&mesh) && trusted(&secrets, ROOTS).contains(&extra));
    assert_eq!(trusted(&secrets, "other"), mesh);
    secrets.trust_besides(Vec::new());
    assert_eq!(trusted(&secrets, ROOTS), mesh, "taken back");
}
