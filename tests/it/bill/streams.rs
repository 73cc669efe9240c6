//! What istiod sent while an operator worked, replayed under load.

use std::time::{Duration, Instant};

use e2e::load::{Load, Report};
use e2e::mesh::{Mesh, Plan, Scenario};
use outrigger_demo::control_plane::{Sent, Verdict};

use super::{Pair, assert_no_failure, assert_share, for_every_pair, linger};

for_every_pair!(a_cutover_fails_no_request);
for_every_pair!(churn_fails_no_request_but_those_sent_to_nowhere);

/// Time under one configuration.
const STAGE: Duration = Duration::from_millis(900);

fn a_cutover_fails_no_request(pair: Pair) {
    let plan = Plan::new(Scenario::Bill, pair.front, pair.bill).recording("front-cutover.bin");
    let mut stages = Stages::start(&plan);
    stages.next("50/50");
    stages.next("0/100");
    stages.next("an endpoint's address changes");
    stages.next("a subset is deleted");
    stages.next("weight 0 to a service that does not exist");
    let (whole, reports) = stages.stop();
    assert_no_failure(&whole);
    for (report, v1) in reports.iter().zip([90.0, 50.0, 0.0, 0.0, 0.0, 0.0]) {
        assert_share(report, "v1", v1, tolerance(v1, report));
        assert_share(report, "v2", 100.0 - v1, tolerance(v1, report));
    }
}

fn churn_fails_no_request_but_those_sent_to_nowhere(pair: Pair) {
    let plan = Plan::new(Scenario::BillTwo, pair.front, pair.bill).recording("front-churn.bin");
    let mut stages = Stages::start(&plan);
    stages.next("50/50");
    stages.next("an endpoint moves to where nobody answers");
    stages.next("back");
    stages.next("10 % to a service that does not exist");
    stages.next("back");
    stages.next("a subset that selects nobody");
    let nowhere_from = stages.pushed(4);
    let line = stages.mesh.logged("front", " 503 NC ");
    let clusters = "bill-service-route";
    assert!(
        line.contains("503 NC cluster_not_found - \"-\" 0 0 ") && line.ends_with(clusters),
        "{line}"
    );
    let (mut whole, reports) = stages.stop();
    // A request that began before the push may be routed after it.
    whole
        .samples
        .retain(|sample| sample.begun + sample.took < nowhere_from);
    assert_no_failure(&whole);
    // Shares of v1, v2, and of Envoy's answer for the rest.
    let expected = [
        (90.0, 10.0),
        (50.0, 50.0),
        (50.0, 50.0),
        (50.0, 50.0),
        (50.0, 40.0),
        (50.0, 50.0),
        (50.0, 0.0),
    ];
    for (report, (v1, v2)) in reports.iter().zip(expected) {
        let failed = 100.0 - v1 - v2;
        assert_share(report, "v1", v1, tolerance(v1, report));
        assert_share(report, "v2", v2, tolerance(v2, report));
        assert!(
            (report.status_share(503) - failed).abs() <= tolerance(failed, report),
            "{:#?}",
            report.failures()
        );
    }
    let kinds = |stage: usize| reports[stage].failures().into_keys().collect::<Vec<_>>();
    assert_eq!(kinds(4), ["503 "], "a cluster that does not exist");
    assert_eq!(
        kinds(6),
        ["503 no healthy upstream"],
        "a subset that selects nobody"
    );
}

/// Sampling noise of a share, generously: four standard deviations, and two points for requests at the borders.
fn tolerance(share: f64, report: &Report) -> f64 {
    let part = share / 100.0;
    400.0 * (part * (1.0 - part) / report.samples.len().max(1) as f64).sqrt()
        + if share == 0.0 { 0.0 } else { 0.5 }
}

/// Load over a mesh whose front follows a recording.
struct Stages {
    mesh: Mesh,
    load: Load,
    stages: Vec<Stage>,
}

/// When a step was pushed, and from when to when what it says held for every request.
struct Stage {
    pushed: Instant,
    from: Instant,
    to: Instant,
}

impl Stages {
    fn start(plan: &Plan) -> Self {
        let mesh = Mesh::start(plan);
        let load = mesh.load();
        let from = Instant::now();
        linger(STAGE);
        Self {
            mesh,
            load,
            stages: vec![Stage {
                pushed: from,
                from,
                to: Instant::now(),
            }],
        }
    }

    fn next(&mut self, name: &str) {
        // Else those that the last step still keeps waiting would be split by the next one. Some hang for long.
        self.load.settle(Duration::from_millis(500));
        let pushed = Instant::now();
        let sent = self.mesh.step();
        assert_accepted(name, &sent);
        // A worker may take the new configuration a moment after the ACK.
        linger(Duration::from_millis(200));
        let from = Instant::now();
        linger(STAGE);
        self.stages.push(Stage {
            pushed,
            from,
            to: Instant::now(),
        });
    }

    fn pushed(&self, stage: usize) -> Instant {
        self.stages[stage].pushed
    }

    /// What came of all requests, and of those of each stage.
    fn stop(self) -> (Report, Vec<Report>) {
        let report = self.load.stop();
        assert_eq!(self.mesh.control.journal().refusals("front"), []);
        let reports = self
            .stages
            .iter()
            .map(|stage| report.between(stage.from, stage.to))
            .collect();
        (report, reports)
    }
}

/// Nothing was refused, the name table and the deleted subset's endpoints included; what was asked for was taken.
fn assert_accepted(step: &str, sent: &[Sent]) {
    for response in sent {
        let verdict = response.verdict.as_ref().map(|(verdict, _)| verdict);
        let is_accepted = verdict == Some(&Verdict::Ack) || (verdict.is_none() && !response.is_subscribed);
        assert!(is_accepted, "{step}: {response:?}");
    }
}
