//! What a mesh is made of: captures, and the proxies that carry them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use envoy_types::pb::google::protobuf::Any;
use serde_json::Value;

use crate::proxy::Kind;
use crate::tools;

/// Which captures a mesh is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One workload of v1, one of v2.
    Bill,
    /// Two workloads of v1, one of v2.
    BillTwo,
    /// The bookinfo application; productpage is whom the users ask.
    Bookinfo,
    /// Front, a shop in three zones of two regions, and one bill.
    Traffic,
}

/// One pod of a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Whose capture it is driven by: its own, or that of another workload of its service.
    pub(crate) capture: &'static str,
    /// Last two octets of its address, 10.20.x.x.
    pub(crate) octets: [u8; 2],
    /// What its application says it is.
    pub(crate) version: &'static str,
    /// Where its application listens; nowhere: it has none.
    pub(crate) ports: &'static [u16],
}

impl Workload {
    const fn new(name: &'static str, octets: [u8; 2], version: &'static str, ports: &'static [u16]) -> Self {
        Self {
            name,
            capture: name,
            octets,
            version,
            ports,
        }
    }

    const fn like(self, capture: &'static str) -> Self {
        Self { capture, ..self }
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        let [third, fourth] = self.octets;
        Ipv4Addr::new(10, 20, third, fourth)
    }

    /// Its node, in proto JSON.
    pub(crate) fn node(self, folder: &Path) -> Value {
        let mut node = node(&folder.join(self.capture));
        if self.capture != self.name {
            let address = self.address().to_string();
            let id = node["id"].as_str().unwrap_or_default();
            node["id"] = id.replace(self.capture, self.name).into();
            let metadata = &mut node["metadata"];
            let own = metadata["INSTANCE_IPS"].as_str().unwrap_or_default().to_owned();
            metadata["INSTANCE_IPS"] = address.as_str().into();
            metadata["NAME"] = self.name.into();
            metadata["WORKLOAD_NAME"] = self.name.into();
            metadata["LABELS"]["version"] = self.version.into();
            metadata["LABELS"]["service.istio.io/canonical-revision"] = self.version.into();
            node["id"] = node["id"]
                .as_str()
                .unwrap_or_default()
                .replace(&own, &address)
                .into();
        }
        node
    }
}

const BILL: &[Workload] = &[
    Workload::new("front", [0, 11], "", &[]),
    Workload::new("bill-v1", [0, 21], "v1", &[9999]),
    Workload::new("bill-v2", [0, 22], "v2", &[9999]),
    Workload::new("bill-v1b", [0, 23], "v1", &[9999]),
];

const BOOKINFO: &[Workload] = &[
    Workload::new("productpage-v1", [1, 10], "", &[]),
    Workload::new("details-v1", [1, 20], "details", &[9080]),
    Workload::new("reviews-v1", [1, 31], "v1", &[9080]),
    Workload::new("reviews-v2", [1, 32], "v2", &[9080]).like("reviews-v1"),
    Workload::new("reviews-v3", [1, 33], "v3", &[9080]).like("reviews-v1"),
    Workload::new("ratings-v1", [1, 41], "v1", &[9080]).like("ratings-v2-mysql-vm"),
    Workload::new("ratings-v2-mysql-vm", [1, 42], "v2-mysql-vm", &[9080]),
];

const TRAFFIC: &[Workload] = &[
    Workload::new("front", [0, 11], "", &[]),
    Workload::new("bill-v1", [0, 21], "v1", &[9999]),
    Workload::new("shop-0", [0, 40], "shop-0", SHOP),
    Workload::new("shop-1", [0, 41], "shop-1", SHOP).like("shop-0"),
    Workload::new("shop-2", [0, 42], "shop-2", SHOP).like("shop-0"),
    Workload::new("shop-3", [0, 43], "shop-3", SHOP).like("shop-0"),
];

/// HTTP, and what is TCP to the mesh.
const SHOP: &[u16] = &[8080, 9000];

impl Scenario {
    /// Every pod; the first is the client.
    pub(crate) fn workloads(self) -> &'static [Workload] {
        match self {
            Self::Bill => &BILL[..3],
            Self::BillTwo => BILL,
            Self::Bookinfo => BOOKINFO,
            Self::Traffic => TRAFFIC,
        }
    }

    /// The folder of its captures in tests/data.
    pub fn folder(self) -> PathBuf {
        tools::data(match self {
            Self::Bill => "bill",
            Self::BillTwo => "bill-two",
            Self::Bookinfo => "bookinfo",
            Self::Traffic => "traffic",
        })
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The captures.
    pub scenario: Scenario,
    /// The pods that are there besides the client, which is the first; none named: all.
    pub pods: &'static [&'static str],
    /// The proxy of the client.
    pub front: Kind,
    /// The proxy of every other pod.
    pub bill: Kind,
    /// A recording (a file of the scenario) that front is driven by, instead of its capture.
    pub recording: Option<&'static str>,
    /// Worker threads of each proxy.
    pub workers: u32,
}

impl Plan {
    /// A mesh on plain captures.
    pub fn new(scenario: Scenario, front: Kind, bill: Kind) -> Self {
        Self {
            scenario,
            pods: &[],
            front,
            bill,
            recording: None,
            workers: 2,
        }
    }

    /// With these pods and the client only.
    #[must_use]
    pub fn only(mut self, pods: &'static [&'static str]) -> Self {
        self.pods = pods;
        self
    }

    /// The pods to build, with the proxy of each.
    ///
    /// # Panics
    /// When a pod is named that the scenario lacks.
    pub(crate) fn workloads(&self) -> Vec<(Workload, Kind)> {
        let all = self.scenario.workloads();
        for name in self.pods {
            assert!(all.iter().any(|workload| workload.name == *name), "no pod {name}");
        }
        let is_wanted = |workload: &Workload| self.pods.is_empty() || self.pods.contains(&workload.name);
        let (client, others) = all.split_first().expect("a scenario has a client");
        let others = others.iter().filter(|workload| is_wanted(workload));
        std::iter::once((*client, self.front))
            .chain(others.map(|workload| (*workload, self.bill)))
            .collect()
    }

    /// A captured resource as every proxy of the mesh can load it. Stock Envoy lacks Istio's own filters; where one side
    /// does without, the other does too: their headers are for each other.
    pub(crate) fn load(&self, resource: Any) -> Any {
        match (self.front, self.bill) {
            (Kind::Outrigger, Kind::Outrigger) => resource,
            _ => outrigger_demo::strip::without_istio_filters(resource),
        }
    }

    /// With front on the first step of a recording.
    #[must_use]
    pub fn recording(mut self, file: &'static str) -> Self {
        self.recording = Some(file);
        self
    }
}

/// The node of a capture.
pub fn node(capture: &Path) -> Value {
    let path = capture.join("node.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut json: Value =
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    json["node"].take()
}
