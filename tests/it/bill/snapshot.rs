//! Starting from the last good configuration on disk, with nobody to ask (`--config-snapshot`).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::mesh::{Mesh, PATIENCE, Plan, Scenario};
use e2e::process::until;
use e2e::proxy::Kind;
use e2e::tools;
use outrigger_demo::control_plane::{CLUSTER, LISTENER};

/// A cluster that nobody needs for the way to bill-service.
const UNNEEDED: &str = "BlackHoleCluster";
/// A listener of a service that nobody calls.
const GONE: &str = "0.0.0.0_8080";

#[test]
fn a_proxy_serves_from_disk_until_the_control_plane_is_back() {
    let mut mesh = Mesh::start(&Plan::new(Scenario::Bill, Kind::Outrigger, Kind::Outrigger));
    let folder = writable_folder();
    let file = folder.path().join("configuration.snapshot");
    let options = ["--config-snapshot", file.to_str().expect("our folder")];
    restart(&mut mesh, &options);
    assert_eq!(mesh.get("/").status(), 200);
    until("a snapshot", PATIENCE, || file.exists().then_some(()));
    holds_no_secret(&file);

    mesh.control.stop();
    restart(&mut mesh, &options);
    assert_eq!(mesh.get("/").status(), 200, "from disk");
    assert!(problems(&mesh).contains(": in force"), "{}", problems(&mesh));
    assert!(has_cluster(&mesh, UNNEEDED));

    // Meanwhile the configuration changed.
    for (type_url, name) in [(CLUSTER, UNNEEDED), (LISTENER, GONE)] {
        assert!(mesh.control.find("front", type_url, name).is_some(), "{name}");
        mesh.control
            .push("front", type_url, Vec::new(), vec![name.to_owned()]);
    }
    assert!(has_listener(&mesh, GONE));
    mesh.listen();
    until("the control plane's configuration", PATIENCE, || {
        (!has_cluster(&mesh, UNNEEDED)).then_some(())
    });
    until("the end of the restored configuration", PATIENCE, || {
        problems(&mesh).contains(": unused").then_some(())
    });
    assert!(!has_listener(&mesh, GONE));
    assert_eq!(mesh.get("/").status(), 200, "from the control plane");
}

#[test]
fn a_snapshot_that_is_too_old_is_named_and_not_used() {
    let mut mesh = Mesh::start(&Plan::new(Scenario::Bill, Kind::Outrigger, Kind::Outrigger));
    let folder = writable_folder();
    let file = folder.path().join("configuration.snapshot");
    let path = file.to_str().expect("our folder").to_owned();
    restart(&mut mesh, &["--config-snapshot", &path]);
    until("a snapshot", PATIENCE, || file.exists().then_some(()));
    mesh.control.stop();
    mesh.pod_mut("front").proxy.as_mut().expect("it runs").kill();
    std::thread::sleep(std::time::Duration::from_secs(2));
    mesh.start_proxy_with(
        "front",
        &["--config-snapshot", &path, "--config-snapshot-max-age-s", "1"],
    );
    until("a refusal", PATIENCE, || {
        let response = mesh.try_admin("front", "/config/problems").ok()?;
        (response.body.contains(": refused") && response.body.contains("allows 1 s")).then_some(())
    });
    assert_eq!(mesh.admin("front", "/ready").status(), 503);
}

/// One that the proxy's user may write to.
fn writable_folder() -> tempfile::TempDir {
    let folder = tools::open_folder("outrigger-e2e-snapshot-");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("the folder is ours");
    folder
}

fn restart(mesh: &mut Mesh, options: &[&str]) {
    mesh.pod_mut("front").proxy.as_mut().expect("it runs").kill();
    mesh.start_proxy_with("front", options);
    mesh.wait_ready("front");
}

fn problems(mesh: &Mesh) -> String {
    mesh.admin("front", "/config/problems").body
}

fn has_listener(mesh: &Mesh, name: &str) -> bool {
    let target = "/config_dump?resource=dynamic_listeners&mask=name";
    mesh.admin("front", target).body.contains(&format!("\"{name}\""))
}

fn has_cluster(mesh: &Mesh, name: &str) -> bool {
    mesh.admin("front", "/clusters").body.contains(name)
}

fn holds_no_secret(file: &Path) {
    let bytes = std::fs::read(file).expect("it is there");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("bill-service"), "the configuration");
    assert!(!text.contains("PRIVATE KEY") && !text.contains("BEGIN CERTIFICATE"));
}
