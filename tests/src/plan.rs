//! What a mesh is made of: captures, and the proxies that carry them.

use std::path::PathBuf;

use envoy_types::pb::google::protobuf::Any;

use crate::proxy::Kind;
use crate::tools;

/// Which captures a mesh is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One workload of v1, one of v2.
    Bill,
    /// Two workloads of v1, one of v2.
    BillTwo,
}

impl Scenario {
    /// Name, last octet, and version of the application of each pod.
    pub(crate) fn pods(self) -> &'static [(&'static str, u8, &'static str)] {
        match self {
            Self::Bill => &[("front", 11, ""), ("bill-v1", 21, "v1"), ("bill-v2", 22, "v2")],
            Self::BillTwo => &[
                ("front", 11, ""),
                ("bill-v1", 21, "v1"),
                ("bill-v2", 22, "v2"),
                ("bill-v1b", 23, "v1"),
            ],
        }
    }

    /// The folder of its captures in tests/data.
    pub fn folder(self) -> PathBuf {
        tools::data(match self {
            Self::Bill => "bill",
            Self::BillTwo => "bill-two",
        })
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The captures.
    pub scenario: Scenario,
    /// The proxy of front.
    pub front: Kind,
    /// The proxy of every bill pod.
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
            front,
            bill,
            recording: None,
            workers: 2,
        }
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
