//! Roots that the control plane has trusted besides those of the mesh.
use outrigger_model::decode::{NAME_TABLE_TYPE, PROXY_CONFIG_TYPE};

use super::*;

fn give(control: &mut Control, roots: &[&str]) -> Result<(), String> {
    let message = json!({ "@type": PROXY_CONFIG_TYPE, "caCertificatesPem": roots });
    let response = json!({ "resources": [message] }).to_string();
    let any = response_from_json(response.as_bytes())
        .unwrap()
        .resources
        .remove(0);
    let resource = Resource {
        name: "proxy-config".to_owned(),
        version: String::new(),
        any: Any {
            type_url: any.type_url.into(),
            value: any.value.into(),
        },
    };
    apply(control, PROXY_CONFIG_TYPE, vec![resource], &[]).map_err(|mut all| all.remove(0).reason)
}

#[test]
fn it_is_asked_for_if_the_node_or_the_environment_says_so() {
    let (mut bootstrap, encoded) = BOOTSTRAP.clone();
    let mut asked = |metadata: &[(&str, &str)], environment: bool| {
        use outrigger_model::metadata;
        let text = |value: &str| metadata::Value::String(value.to_owned());
        let metadata = metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(value)));
        bootstrap.node.metadata = metadata.collect();
        let mut control = control_of(bootstrap.clone(), encoded.clone());
        if environment {
            control.ask_proxy_config();
        }
        let types = [NAME_TABLE_TYPE, PROXY_CONFIG_TYPE].map(|type_url| wanted(&control, type_url).len());
        (types[0], types[1])
    };
    assert_eq!(asked(&[], false), (0, 0));
    assert_eq!(asked(&[("DNS_CAPTURE", "true")], false), (1, 0));
    assert_eq!(asked(&[("PROXY_CONFIG_XDS_AGENT", "true")], false), (0, 1));
    assert_eq!(asked(&[("PROXY_CONFIG_XDS_AGENT", "false")], true), (0, 1));
}

#[test]
fn what_is_no_certificate_is_refused_and_listed() {
    let mut control = control();
    let good = certificate("s")["tlsCertificate"]["certificateChain"]["inlineString"].clone();
    give(&mut control, &[good.as_str().unwrap()]).unwrap();
    let refused = give(
        &mut control,
        &["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    )
    .unwrap_err();
    assert!(refused.contains("ca_certificates_pem"), "{refused}");
    let listed: Vec<_> = control.problems().into_iter().map(|each| each.type_url).collect();
    assert_eq!(listed, [PROXY_CONFIG_TYPE]);
    give(&mut control, &[]).unwrap();
    assert!(control.problems().is_empty());
}
