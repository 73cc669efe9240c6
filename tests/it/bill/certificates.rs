//! Certificates that a peer must refuse: expired, of another authority, or for somebody else.

use e2e::http::Response;
use e2e::mesh::{Mesh, Plan, Scenario};
use e2e::proxy::Kind;
use outrigger_demo::ca::KeyKind::{P256, Rsa2048};
use outrigger_demo::ca::{Authority, Identity, Validity};
use outrigger_demo::sds::Secrets;

use super::{Pair, for_every_pair};

for_every_pair!(front_refuses_a_bad_certificate_of_bill);
for_every_pair!(bill_refuses_a_bad_certificate_of_front);
for_every_pair!(rsa_keys_work_as_well);

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Expired,
    NotYetValid,
    /// Signed by another root of the same name.
    Foreign,
    /// For an identity that the peer does not expect.
    Mismatched,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Expired, Self::NotYetValid, Self::Foreign, Self::Mismatched];

    /// The counter that counts refusals for this.
    fn counter(self) -> &'static str {
        if self == Self::Mismatched {
            "ssl.fail_verify_san"
        } else {
            "ssl.fail_verify_error"
        }
    }

    /// Part of the reason in Envoy's words, lower case; outrigger need not repeat BoringSSL's numbers.
    fn reason(self) -> &'static str {
        match self {
            Self::Expired => "certificate_has_expired",
            Self::NotYetValid => "certificate_is_not_yet_valid",
            Self::Foreign => "certificate_verify_failed",
            Self::Mismatched => "san",
        }
    }

    /// A word that outrigger's own log must have.
    fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Foreign => "certificate",
            Self::Mismatched => "spiffe://elsewhere.local/",
        }
    }
}

fn front_refuses_a_bad_certificate_of_bill(pair: Pair) {
    for fault in Fault::ALL {
        let mesh = with_fault(pair, fault, &["bill-v1", "bill-v2"]);
        let response = mesh.get("/");
        assert_local_reply(
            &response,
            "retried and the latest reset reason: remote connection failure",
        );
        let line = mesh.logged("front", "\"GET / HTTP/1.1\" 503 ").to_lowercase();
        let start = "503 urx,uf upstream_reset_before_response_started{remote_connection_failure|tls_error:";
        assert!(
            line.contains(start) && line.contains(fault.reason()),
            "{fault:?}: {line}"
        );
        if fault == Fault::Mismatched {
            assert!(
                line.contains("[spiffe://cluster.local/ns/default/sa/somebody-else]"),
                "{line}"
            );
        }
        // The first attempt and two retries.
        assert_eq!(
            mesh.counter("front", fault.counter()),
            3,
            "{fault:?}: {}",
            fault.counter()
        );
        assert!(
            mesh.access_log("bill-v1").is_empty() && mesh.access_log("bill-v2").is_empty(),
            "{fault:?}"
        );
    }
}

fn bill_refuses_a_bad_certificate_of_front(pair: Pair) {
    for fault in Fault::ALL {
        let mesh = with_fault(pair, fault, &["front"]);
        let response = mesh.get("/");
        // In TLS 1.3 the client has finished, and sent its request, before the server judges its certificate.
        assert_local_reply(&response, "reset reason: connection termination");
        let line = mesh.logged("front", "\"GET / HTTP/1.1\" 503 ");
        assert!(
            line.contains(
                " 503 UC upstream_reset_before_response_started{connection_termination} - \"-\" 0 95 "
            ),
            "{line}"
        );
        let bills = ["bill-v1", "bill-v2"];
        let refused: u64 = bills.iter().map(|bill| mesh.counter(bill, fault.counter())).sum();
        assert_eq!(refused, 1, "{fault:?}: {}", fault.counter());
        assert!(
            mesh.access_log("bill-v1").is_empty() && mesh.access_log("bill-v2").is_empty(),
            "{fault:?}"
        );
        if pair.bill == Kind::Outrigger {
            // Envoy counts and says nothing; outrigger says why.
            let log = (mesh.log("bill-v1") + &mesh.log("bill-v2")).to_lowercase();
            assert!(
                log.contains(fault.word()),
                "{fault:?}: nothing about {} in {log}",
                fault.word()
            );
        }
    }
}

fn rsa_keys_work_as_well(pair: Pair) {
    let mut mesh = Mesh::build(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    for name in ["front", "bill-v1", "bill-v2"] {
        let pod = mesh.pod(name);
        let issued = mesh
            .authority
            .issue_as(&pod.identity, Validity::Current, Rsa2048)
            .unwrap();
        pod.secrets.set(Secrets {
            workload: Some(issued),
            roots: mesh.authority.root(),
        });
    }
    mesh.start_all();
    assert_eq!(mesh.get("/").status(), 200);
}

fn with_fault(pair: Pair, fault: Fault, pods: &[&str]) -> Mesh {
    let mut mesh = Mesh::build(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    let foreign = Authority::new("outrigger tests").unwrap();
    for name in pods {
        let pod = mesh.pod(name);
        let mut identity = pod.identity.clone();
        if fault == Fault::Mismatched {
            // Bill accepts anyone of its trust domain, front accepts bill's account only.
            identity = match *name {
                "front" => Identity {
                    trust_domain: "elsewhere.local".to_owned(),
                    ..identity
                },
                _ => Identity {
                    service_account: "somebody-else".to_owned(),
                    ..identity
                },
            };
        }
        let validity = match fault {
            Fault::Expired => Validity::Expired,
            Fault::NotYetValid => Validity::NotYet,
            Fault::Foreign | Fault::Mismatched => Validity::Current,
        };
        let authority = if fault == Fault::Foreign {
            &foreign
        } else {
            &mesh.authority
        };
        let issued = authority.issue_as(&identity, validity, P256).unwrap();
        pod.secrets.set(Secrets {
            workload: Some(issued),
            roots: mesh.authority.root(),
        });
    }
    mesh.start_all();
    mesh
}

fn assert_local_reply(response: &Response, end: &str) {
    assert_eq!(response.status(), 503);
    let expected = format!("upstream connect error or disconnect/reset before headers. {end}");
    assert_eq!(response.body, expected);
}
