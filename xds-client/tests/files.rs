//! A client of a file: every way in which the path can lead to another content, and what is wrong with it meanwhile.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use tokio::sync::mpsc;
use xds_client::{
    Client, ConnectionEvent, FileSource, Handle, Handler, Rejection, Subscriptions, Update, WILDCARD,
};

const TYPE: &str = "t/things";
const PATIENCE: Duration = Duration::from_secs(20);

/// A file holds the names of its resources, with spaces between them; `!` is not readable.
fn read(path: &Path) -> Result<DiscoveryResponse, String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    if text.contains('!') {
        return Err("unexpected `!`".into());
    }
    let any = |name: &str| {
        let length = u8::try_from(name.len()).unwrap();
        Any {
            type_url: TYPE.into(),
            value: [&[0x0a, length], name.as_bytes()].concat(),
        }
    };
    Ok(DiscoveryResponse {
        version_info: text.clone(),
        resources: text.split_whitespace().map(any).collect(),
        ..DiscoveryResponse::default()
    })
}

#[derive(Debug, PartialEq)]
enum Told {
    Update(String, Vec<String>),
    Down(String),
}

struct Owner(mpsc::Sender<Told>);

impl Handler for Owner {
    fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        let added: Vec<_> = update.added.iter().map(|r| r.name.as_str()).collect();
        self.0
            .try_send(Told::Update(added.join(" "), update.removed.clone()))
            .unwrap();
        Ok(())
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        if let ConnectionEvent::Disconnected { reason, .. } = event {
            self.0.try_send(Told::Down(reason)).unwrap();
        }
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    handle: Handle,
    told: mpsc::Receiver<Told>,
}

impl Fixture {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn check(&mut self, added: &str, removed: &[&str]) {
        let removed = removed.iter().map(|n| (*n).to_owned()).collect();
        assert_eq!(self.next().await, Told::Update(added.to_owned(), removed));
    }

    async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(PATIENCE, self.told.recv()).await;
        next.expect("nothing came in time").unwrap()
    }
}

fn start(names: &[&str]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let mut wishes = Subscriptions::default();
    wishes.set_names(TYPE, names.iter().map(|n| (*n).to_owned()).collect());
    let source = FileSource {
        path: folder.path().join("file"),
        interval: Duration::from_millis(10),
        read: Box::new(read),
    };
    let (client, handle) = Client::of_file(source, wishes);
    let (sender, told) = mpsc::channel(64);
    tokio::spawn(async move { client.run(Owner(sender)).await });
    Fixture { folder, handle, told }
}

#[tokio::test]
async fn every_way_to_change_a_file_is_seen() {
    let mut fixture = start(&[WILDCARD]);
    assert!(matches!(fixture.next().await, Told::Down(reason) if reason.contains("No such file")));
    fs::write(fixture.at("file"), "a b").unwrap();
    fixture.check("a b", &[]).await;
    // As Kubernetes and Istio do: moved over it.
    fs::write(fixture.at("new"), "b c").unwrap();
    fs::rename(fixture.at("new"), fixture.at("file")).unwrap();
    fixture.check("b c", &["a"]).await;
    // As the kubelet does: file -> ..data/file, ..data -> a folder, and ..data is moved over.
    for version in ["v1", "v2"] {
        fs::create_dir(fixture.at(version)).unwrap();
        fs::write(fixture.at(version).join("file"), version).unwrap();
    }
    symlink("v1", fixture.at("..data")).unwrap();
    symlink("..data/file", fixture.at("link")).unwrap();
    fs::rename(fixture.at("link"), fixture.at("file")).unwrap();
    fixture.check("v1", &["b", "c"]).await;
    symlink("v2", fixture.at("..tmp")).unwrap();
    fs::rename(fixture.at("..tmp"), fixture.at("..data")).unwrap();
    fixture.check("v2", &["v1"]).await;
}

#[tokio::test]
async fn a_broken_or_missing_file_is_told_once_and_changes_nothing() {
    let mut fixture = start(&[WILDCARD]);
    fixture.next().await;
    fs::write(fixture.at("file"), "a").unwrap();
    fixture.check("a", &[]).await;
    fs::write(fixture.at("file"), "a!").unwrap();
    assert_eq!(fixture.next().await, Told::Down("unexpected `!`".into()));
    fs::remove_file(fixture.at("file")).unwrap();
    assert!(matches!(fixture.next().await, Told::Down(reason) if reason.contains("No such file")));
    tokio::time::sleep(Duration::from_millis(50)).await;
    fs::write(fixture.at("file"), "a").unwrap();
    fixture.check("a", &[]).await;
}

#[tokio::test]
async fn with_names_the_rest_of_the_file_is_left_alone() {
    let mut fixture = start(&["b"]);
    fixture.next().await;
    fs::write(fixture.at("file"), "a b c").unwrap();
    fixture.check("b", &[]).await;
    fixture
        .handle
        .set_names(TYPE, BTreeSet::from(["b".to_owned(), "c".to_owned()]))
        .unwrap();
    fixture.check("b c", &[]).await;
}
