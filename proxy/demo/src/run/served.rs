//! What the control plane serves to each sidecar: the capture, with the resources of the file in their places, with the
//! edits. Pushes what a new file changes, and takes it back when a sidecar refuses it.

use std::time::Duration;

use prost::DecodeError;

use super::captures::CAPTURES;
use super::edits::Edits;
use super::file::{self, Weights};
use super::places::Places;
use crate::control_plane::{CLUSTER, ControlPlane, ENDPOINTS, LISTENER, Named, ROUTES, Snapshot, Verdict};

/// How long a sidecar may take to say whether it takes an update.
const PATIENCE: Duration = Duration::from_secs(2);
/// In this order nothing refers to what is not there yet.
const ORDER: [&str; 4] = [CLUSTER, ENDPOINTS, LISTENER, ROUTES];

/// What is served.
pub(super) struct Served {
    control: ControlPlane,
    workloads: Vec<Workload>,
}

struct Workload {
    name: &'static str,
    edits: Edits,
    /// Nothing of the file.
    captured: Snapshot,
    /// As the sidecar has it, but for the edits.
    current: Snapshot,
}

impl Served {
    /// Serves every workload from now on.
    ///
    /// # Errors
    /// Only in a broken build.
    pub(super) fn new(
        control: ControlPlane,
        places: &Places,
        resources: &[Named],
    ) -> Result<Self, DecodeError> {
        let mut workloads = Vec::new();
        for ((capture, _), pod) in CAPTURES.iter().zip(&places.pods) {
            let captured = capture.snapshot()?;
            let workload = Workload {
                name: capture.name,
                edits: Edits::new(places, pod),
                current: overlaid(&captured, resources),
                captured,
            };
            control.serve(workload.name, workload.edited());
            workloads.push(workload);
        }
        Ok(Self { control, workloads })
    }

    /// How front's requests are split.
    pub(super) fn weights(&self) -> Weights {
        self.workloads
            .first()
            .map(|front| file::weights(&front.current))
            .unwrap_or_default()
    }

    /// Every resource of front, captured and current.
    pub(super) fn known(&self) -> Vec<Named> {
        let snapshots = self
            .workloads
            .first()
            .map(|front| [&front.captured, &front.current]);
        let resources = |snapshot: &Snapshot| -> Vec<Named> {
            snapshot
                .types()
                .flat_map(|type_url| snapshot.all(type_url))
                .cloned()
                .collect()
        };
        snapshots.into_iter().flatten().flat_map(resources).collect()
    }

    /// Serves these resources of the file instead of those before, and waits until every sidecar has said what it
    /// thinks of them. Whether there was anything to say.
    ///
    /// # Errors
    /// The reason of the first sidecar that refuses; all go back to what they had.
    pub(super) async fn update(&mut self, resources: &[Named]) -> Result<bool, String> {
        let before: Vec<Snapshot> = self.workloads.iter().map(|it| it.current.clone()).collect();
        let mut nonces = Vec::new();
        let mut is_new = false;
        for workload in &mut self.workloads {
            let new = overlaid(&workload.captured, resources);
            is_new |= new != workload.current;
            nonces.extend(workload.push(&self.control, new));
        }
        let mut refused = None;
        for (name, nonce) in nonces {
            match self.control.verdict(&nonce, PATIENCE).await {
                Ok(Verdict::Nack(reason)) => {
                    refused = refused.or(Some(format!("{name} refuses it: {reason}")))
                }
                // A sidecar that is down, or too busy to answer, gets it when it comes back.
                Ok(Verdict::Ack) | Err(_) => {}
            }
        }
        let Some(reason) = refused else { return Ok(is_new) };
        for (workload, before) in self.workloads.iter_mut().zip(before) {
            workload.push(&self.control, before);
        }
        Err(reason)
    }
}

impl Workload {
    fn edited(&self) -> Snapshot {
        self.current
            .clone()
            .map(|any| self.edits.apply(&Named::from_any(any)).any)
    }

    /// Makes `new` current and pushes what differs: workload and nonce of each response.
    fn push(&mut self, control: &ControlPlane, new: Snapshot) -> Vec<(&'static str, String)> {
        let mut nonces = Vec::new();
        for type_url in ORDER {
            let changed: Vec<Named> = new
                .all(type_url)
                .iter()
                .filter(|resource| self.current.find(type_url, &resource.name) != Some(resource))
                .map(|resource| self.edits.apply(resource))
                .collect();
            let removed: Vec<String> = self
                .current
                .all(type_url)
                .iter()
                .filter(|resource| new.find(type_url, &resource.name).is_none())
                .map(|resource| resource.name.clone())
                .collect();
            if !changed.is_empty() || !removed.is_empty() {
                let nonce = control.push(self.name, type_url, changed, removed);
                nonces.extend(nonce.map(|nonce| (self.name, nonce)));
            }
        }
        self.current = new;
        nonces
    }
}

fn overlaid(captured: &Snapshot, resources: &[Named]) -> Snapshot {
    let mut snapshot = captured.clone();
    for resource in resources {
        snapshot.put(&resource.any.type_url, resource.clone());
    }
    snapshot
}
