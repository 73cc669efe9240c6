//! Configuration that outlives the process, refusals that are listed, versions that are compared.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use outrigger_model::bootstrap::ConfigServer;
use outrigger_model::document::{UnknownFields, parse_bootstrap};
use xds_client::{Any, Rejection, Resource, Update};

use super::*;
use crate::config::build::Shared;
use crate::config::problems::Kind;
use crate::stats::{Registry, TagRules};
use crate::telemetry::access_log::LogSinks;
use crate::telemetry::istio_stats::IstioMetrics;
use crate::telemetry::peer::LocalPeers;

fn control() -> Control {
    let text = "static_resources: { clusters: [ { name: own, connect_timeout: 1s } ] }";
    let (message, encoded) = parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse).unwrap();
    let bootstrap = outrigger_model::decode::bootstrap(message).unwrap().value;
    let registry = Registry::new(TagRules::new(&[], true).unwrap());
    let shared = Arc::new(Shared {
        sinks: LogSinks::new(&registry).unwrap(),
        clusters: Arc::default(),
        local_peers: Arc::new(LocalPeers::new(bootstrap.node.clone())),
        drain_time: Duration::from_secs(1),
        resolves_names: false,
        zone: Default::default(),
        limits: Default::default(),
        istio: IstioMetrics::new(&registry, &bootstrap.node),
        registry,
    });
    let mut control = Control::new(bootstrap, encoded.into(), shared, Vec::new()).unwrap();
    control.keep_history(crate::config::history::Limits::default());
    control
}

/// An encoded cluster: its name, and seconds to connect.
fn cluster(name: &str, seconds: u8) -> Resource {
    let mut value = vec![0x0a, name.len() as u8];
    value.extend(name.as_bytes());
    value.extend([0x22, 2, 0x08, seconds]);
    resource(name, value)
}

/// One that cannot be taken: -1 s to connect.
fn broken(name: &str) -> Resource {
    let mut value = vec![0x0a, name.len() as u8];
    value.extend(name.as_bytes());
    value.extend([0x22, 11, 0x08]);
    value.extend([0xff; 9]);
    value.push(1);
    resource(name, value)
}

fn resource(name: &str, value: Vec<u8>) -> Resource {
    let any = Any {
        type_url: CLUSTER_TYPE.into(),
        value: value.into(),
    };
    Resource {
        name: name.to_owned(),
        version: String::new(),
        any,
    }
}

fn apply(control: &mut Control, version: &str, added: Vec<Resource>) -> Result<(), Vec<Rejection>> {
    let update = Update {
        type_url: CLUSTER_TYPE.into(),
        version: version.to_owned(),
        added,
        removed: Vec::new(),
        full_state: false,
    };
    control.apply(&ConfigServer::Ads, &update)
}

fn names(control: &Control) -> Vec<String> {
    let clusters = control.shared().clusters.all();
    clusters.iter().map(|cluster| cluster.name.to_string()).collect()
}

#[test]
fn one_bad_resource_is_refused_and_listed_and_the_others_apply() {
    let mut control = control();
    let rejections = apply(
        &mut control,
        "v1",
        vec![cluster("a", 1), broken("b"), cluster("c", 1)],
    )
    .unwrap_err();
    assert_eq!(rejections.len(), 1);
    assert!(
        rejections[0].resource == "b" && rejections[0].reason.contains("connect_timeout"),
        "{rejections:?}"
    );
    assert_eq!(names(&control), ["a", "c", "own"]);
    let problems = control.problems();
    let rejected: Vec<_> = problems
        .iter()
        .filter(|each| each.kind == Kind::Rejected)
        .collect();
    assert_eq!(rejected.len(), 1, "{problems:?}");
    assert_eq!(
        (
            &*rejected[0].resource,
            rejected[0].path.as_str(),
            &*rejected[0].version
        ),
        ("b", "connect_timeout", "v1")
    );
    let since = rejected[0].since;
    apply(&mut control, "v2", vec![broken("b")]).unwrap_err();
    assert_eq!(
        control
            .problems()
            .iter()
            .find(|each| &*each.resource == "b")
            .unwrap()
            .since,
        since
    );
    apply(&mut control, "v3", vec![cluster("b", 1)]).unwrap();
    assert!(control.problems().iter().all(|each| each.kind != Kind::Rejected));
}

#[test]
fn accepted_versions_are_kept_and_the_same_again_is_none() {
    let mut control = control();
    apply(&mut control, "v1", vec![cluster("a", 1), cluster("b", 1)]).unwrap();
    apply(&mut control, "v2", vec![cluster("a", 1), cluster("b", 1)]).unwrap();
    apply(&mut control, "v3", vec![cluster("a", 1), cluster("b", 2)]).unwrap();
    let versions: Vec<_> = control
        .history()
        .into_iter()
        .map(|each| (each.number, each.version))
        .collect();
    assert_eq!(versions, [(2, "v3".to_owned()), (1, "v1".to_owned())]);
    let changed: Vec<_> = control
        .differences(1, 2)
        .unwrap()
        .into_iter()
        .map(|each| each.name)
        .collect();
    assert_eq!(changed, ["b".into()] as [Arc<str>; 1]);
}

#[test]
fn a_snapshot_serves_until_the_control_plane_answers() {
    let folder = tempfile::tempdir().unwrap();
    let options = SnapshotOptions {
        path: folder.path().join("snapshot"),
        max_age: Duration::from_secs(100),
    };
    let mut before = control();
    apply(&mut before, "v1", vec![cluster("a", 1), cluster("gone", 1)]).unwrap();
    let snapshot = Snapshot {
        node: "n".to_owned(),
        saved: SystemTime::now(),
        types: before.resources_to_keep(),
    };
    snapshot.write(&options.path).unwrap();

    let mut control = control();
    assert!(!control.restore(), "nobody asked for a snapshot");
    control.keep_snapshot(options.clone(), "n".to_owned());
    assert!(control.restore() && !control.restore(), "once");
    assert_eq!(names(&control), ["a", "gone", "own"]);
    control.end_restored();
    let status = control.snapshot_status().unwrap();
    assert_eq!(
        (status.state, status.types.contains(&CLUSTER_TYPE)),
        ("in force", true)
    );

    let held = control.restored_names(CLUSTER_TYPE);
    assert!(held.iter().eq(["a", "gone"]), "{held:?}");
    apply(&mut control, "v2", vec![cluster("a", 2), cluster("new", 1)]).unwrap();
    assert_eq!(
        names(&control),
        ["a", "gone", "new", "own"],
        "a first answer may be a part of the whole; what is gone is said"
    );
    control.replace_restored(LISTENER_TYPE);
    control.end_restored();
    assert_eq!(control.snapshot_status().unwrap().state, "unused");

    let mut other = self::control();
    other.keep_snapshot(options, "other".to_owned());
    assert!(!other.restore());
    let status = other.snapshot_status().unwrap();
    assert!(
        status.state == "refused" && status.reason.unwrap().contains("node"),
        "{:?}",
        other.snapshot_status()
    );
}
