//! Workloads and principals, as metrics name them. Source: contract §5; envoy contrib/istio/filters/common, metadata object.
use std::cell::RefCell;
use std::sync::Arc;

use outrigger_model::metadata::{Struct, Value};

use super::recent::{Recent, Serial};

/// A workload. Empty: not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Stands for it in keys.
    pub(crate) serial: Serial,
    /// Deployment, or what else made its pods.
    pub(crate) name: Arc<str>,
    /// Kubernetes namespace.
    pub(crate) namespace: Arc<str>,
    /// `service.istio.io/canonical-name`.
    pub(crate) canonical_name: Arc<str>,
    /// `service.istio.io/canonical-revision`.
    pub(crate) canonical_revision: Arc<str>,
    /// Label `app`.
    pub(crate) app: Arc<str>,
    /// Label `version`.
    pub(crate) version: Arc<str>,
    /// Cluster of the mesh.
    pub(crate) cluster: Arc<str>,
    /// Its principal, as it says itself.
    pub(crate) identity: Arc<str>,
}

/// Labels of Kubernetes that a peer's `app` and `version` may have instead, and that count more.
const QUALIFIED_APP: &str = "app.kubernetes.io/name";
const QUALIFIED_VERSION: &str = "app.kubernetes.io/version";

impl Workload {
    /// This one, by the metadata of its node.
    pub(crate) fn local(metadata: &Struct) -> Workload {
        Workload::read(metadata, |labels, name, _| text(labels, name))
    }

    /// A peer, by the metadata that it sent.
    pub(crate) fn peer(metadata: &Struct) -> Workload {
        Workload::read(metadata, |labels, name, qualified| {
            let best = text(labels, qualified);
            if best.is_empty() { text(labels, name) } else { best }
        })
    }

    fn read(metadata: &Struct, labelled: fn(Option<&Struct>, &str, &str) -> Arc<str>) -> Workload {
        let labels = metadata.get("LABELS").and_then(Value::as_struct);
        let member = |name| text(Some(metadata), name);
        Workload {
            serial: Serial::next(),
            name: member("WORKLOAD_NAME"),
            namespace: member("NAMESPACE"),
            canonical_name: text(labels, "service.istio.io/canonical-name"),
            canonical_revision: text(labels, "service.istio.io/canonical-revision"),
            app: labelled(labels, "app", QUALIFIED_APP),
            version: labelled(labels, "version", QUALIFIED_VERSION),
            cluster: member("CLUSTER_ID"),
            identity: member("IDENTITY"),
        }
    }

    /// An endpoint, by what its metadata `istio.workload` says: `name;namespace;canonical name;canonical revision;cluster`.
    pub(crate) fn endpoint(encoded: &str) -> Option<Workload> {
        let mut parts = encoded.split(';').map(Arc::from);
        let [name, namespace, canonical_name, canonical_revision, cluster] =
            std::array::from_fn(|_| parts.next());
        let unknown: Arc<str> = Arc::from("");
        Some(Workload {
            serial: Serial::next(),
            name: name?,
            namespace: namespace?,
            canonical_name: canonical_name?,
            canonical_revision: canonical_revision?,
            cluster: cluster?,
            app: unknown.clone(),
            version: unknown.clone(),
            identity: unknown,
        })
    }
}

fn text(fields: Option<&Struct>, name: &str) -> Arc<str> {
    fields
        .and_then(|fields| fields.get(name)?.as_str())
        .unwrap_or_default()
        .into()
}

/// Who both ends of a TLS connection are: the first URI name of their certificates. Empty: none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Principals {
    /// Stands for both in keys.
    pub(crate) serial: Serial,
    /// The other end.
    pub(crate) peer: Arc<str>,
    /// This end.
    pub(crate) local: Arc<str>,
}

/// Pairs that a worker remembers.
const PRINCIPALS: usize = 512;

impl Principals {
    /// Those of a new connection; connections of the same two get the same object on one worker. Allocates for a pair not seen lately.
    pub(crate) fn of(peer: Option<&str>, local: Option<&str>) -> Arc<Principals> {
        type Pairs = Recent<(Arc<str>, Arc<str>), Arc<Principals>>;
        thread_local! {
            static PAIRS: RefCell<Pairs> = RefCell::new(Recent::new(PRINCIPALS));
        }
        let pair: (Arc<str>, Arc<str>) = (peer.unwrap_or_default().into(), local.unwrap_or_default().into());
        PAIRS.with_borrow_mut(|pairs| {
            if let Some(known) = pairs.get(&pair, || pair.clone()) {
                return known;
            }
            let principals = Arc::new(Principals {
                serial: Serial::next(),
                peer: pair.0.clone(),
                local: pair.1.clone(),
            });
            pairs.insert(pair, principals.clone());
            principals
        })
    }

    /// Both are there: mutual TLS.
    pub(crate) fn are_mutual(&self) -> bool {
        !self.peer.is_empty() && !self.local.is_empty()
    }

    /// The namespace in the peer's SPIFFE id, `spiffe://domain/ns/NAMESPACE/sa/account`.
    pub(crate) fn namespace(principal: &str) -> Option<&str> {
        let (_, rest) = principal.split_once("/ns/")?;
        rest.split('/').next().filter(|namespace| !namespace.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(labels: &[(&str, &str)]) -> Struct {
        let value = |text: &str| Value::String(text.to_owned());
        let labels = labels
            .iter()
            .map(|(name, text)| ((*name).to_owned(), value(text)))
            .collect();
        Struct::from([
            ("WORKLOAD_NAME".to_owned(), value("front-v1")),
            ("LABELS".to_owned(), Value::Struct(labels)),
        ])
    }

    #[test]
    fn a_peers_qualified_labels_count_more() {
        let metadata = labelled(&[("app", "a"), (QUALIFIED_APP, "qualified"), ("version", "v1")]);
        let (peer, local) = (Workload::peer(&metadata), Workload::local(&metadata));
        assert_eq!((&*peer.app, &*peer.version), ("qualified", "v1"));
        assert_eq!(
            (&*local.app, &*local.name, &*local.cluster),
            ("a", "front-v1", "")
        );
    }

    #[test]
    fn an_endpoint_says_five_things() {
        let workload = Workload::endpoint("bill-v1;default;bill;v1;Kubernetes").unwrap();
        assert_eq!(
            [
                &workload.name,
                &workload.namespace,
                &workload.canonical_name,
                &workload.canonical_revision,
                &workload.cluster,
                &workload.app
            ]
            .map(|text| &**text),
            ["bill-v1", "default", "bill", "v1", "Kubernetes", ""]
        );
        assert_eq!(Workload::endpoint("bill-v1;default;bill;v1"), None);
    }

    #[test]
    fn the_same_two_are_one_object() {
        let first = Principals::of(Some("spiffe://d/ns/a/sa/b"), None);
        assert_eq!(first, Principals::of(Some("spiffe://d/ns/a/sa/b"), None));
        assert_ne!(first, Principals::of(None, Some("spiffe://d/ns/a/sa/b")));
        assert!(!first.are_mutual());
    }

    #[test]
    fn a_spiffe_id_names_a_namespace() {
        assert_eq!(Principals::namespace("spiffe://d/ns/a/sa/b"), Some("a"));
        assert_eq!(Principals::namespace("spiffe://d/ns//sa/b"), None);
        assert_eq!(Principals::namespace("spiffe://d"), None);
    }
}
