//! What goes to disk, and what must not.
use outrigger_model::decode::{CLUSTER_TYPE, LISTENER_TYPE, SECRET_TYPE};

use super::*;

/// A transport socket with a key pair written in it.
fn socket_with_key(context: &str) -> Value {
    let pair = &certificate("s")["tlsCertificate"];
    let name = format!("envoy.extensions.transport_sockets.tls.v3.{context}");
    let message = json!({ "commonTlsContext": { "tlsCertificates": [pair] } });
    json!({ "name": "tls", "typedConfig": typed(&name, message) })
}

#[test]
fn no_private_key_goes_to_disk() {
    let mut control = control();
    let mut give = |type_url: &str, documents: &[Value]| {
        let resources = resources(documents).into_values().collect();
        apply(&mut control, type_url, resources, &[]).unwrap();
    };
    let mut keyed = cluster("keyed", "a", None, None);
    keyed["transportSocket"] = socket_with_key("UpstreamTlsContext");
    give(
        CLUSTER_TYPE,
        &[cluster("plain", "a", None, Some(secret_ref("s", None))), keyed],
    );
    let mut keyed = listener("keyed", 1, &rds("r", None), None);
    keyed["filterChains"][0]["transportSocket"] = socket_with_key("DownstreamTlsContext");
    give(
        LISTENER_TYPE,
        &[listener("plain", 2, &rds("r", None), None), keyed],
    );
    give(SECRET_TYPE, &[certificate("s")]);
    let kept = control.resources_to_keep();
    let resources = || kept.iter().flat_map(|kept| &kept.resources);
    let names: Vec<_> = resources().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["plain", "plain"]);
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!resources().any(|(_, bytes)| holds(bytes, "PRIVATE KEY")));
}
