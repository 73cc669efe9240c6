//! One test a rule of the incremental protocol.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use envoy_types::pb::google::protobuf::Duration;

use super::*;
use crate::{Any, Rejection, ReportedError, Update};

const CDS: &str = "cds";
const EDS: &str = "eds";

/// Records updates; rejects what its list says; sets subscriptions when told to.
#[derive(Default)]
struct Owner {
    updates: Vec<Update>,
    rejects: Vec<&'static str>,
    then_names: Option<(&'static str, Vec<&'static str>)>,
}

impl Handler for Owner {
    fn on_update(
        &mut self,
        update: &Update,
        subscriptions: &mut Subscriptions,
    ) -> Result<(), Vec<Rejection>> {
        let bad: Vec<_> = update
            .added
            .iter()
            .filter(|r| self.rejects.contains(&r.name.as_str()))
            .collect();
        let rejections: Vec<_> = bad
            .iter()
            .map(|r| Rejection {
                resource: r.name.clone(),
                reason: "bad".into(),
            })
            .collect();
        self.updates.push(update.clone());
        if let Some((type_url, names)) = self.then_names.take() {
            subscriptions.set_names(type_url, set(&names));
        }
        if rejections.is_empty() {
            Ok(())
        } else {
            Err(rejections)
        }
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn session(wishes: &[(&str, &[&str])]) -> DeltaSession {
    let mut subscriptions = Subscriptions::default();
    for (type_url, names) in wishes {
        subscriptions.set_names(type_url, set(names));
    }
    let mut session = DeltaSession::new(
        Node {
            id: "me".into(),
            ..Node::default()
        },
        subscriptions,
    );
    session.stream_opened();
    session
}

fn resource(type_url: &str, name: &str, version: &str) -> DeltaResource {
    DeltaResource {
        name: name.into(),
        version: version.into(),
        resource: Some(Any {
            type_url: type_url.as_bytes().to_vec().into(),
            value: vec![1].into(),
        }),
        ..DeltaResource::default()
    }
}

/// A response; a name may carry a version as `name@version`.
fn response(type_url: &str, nonce: &str, added: &[&str], removed: &[&str]) -> DeltaResponse {
    let split = |n: &&str| {
        let (name, version) = n.split_once('@').unwrap_or((n, ""));
        resource(type_url, name, version)
    };
    DeltaResponse {
        type_url: type_url.into(),
        nonce: nonce.into(),
        resources: added.iter().map(split).collect(),
        removed_resources: removed.iter().map(|n| (*n).to_owned()).collect(),
        ..DeltaResponse::default()
    }
}

fn drain(session: &mut DeltaSession) -> Vec<DeltaDiscoveryRequest> {
    std::iter::from_fn(|| session.next_request()).collect()
}

/// `type +subscribed -unsubscribed =initial@version #nonce !error`, for comparing at a glance.
fn text(request: &DeltaDiscoveryRequest) -> String {
    let mut text = request.type_url.clone();
    request
        .resource_names_subscribe
        .iter()
        .for_each(|n| text += &format!(" +{n}"));
    request
        .resource_names_unsubscribe
        .iter()
        .for_each(|n| text += &format!(" -{n}"));
    let initial: BTreeMap<_, _> = request.initial_resource_versions.iter().collect();
    initial.iter().for_each(|(n, v)| text += &format!(" ={n}@{v}"));
    if !request.response_nonce.is_empty() {
        text += &format!(" #{}", request.response_nonce);
    }
    if let Some(status) = &request.error_detail {
        text += &format!(" !{}", status.message);
    }
    text
}

fn check_requests(session: &mut DeltaSession, expected: &[&str]) {
    let requests: Vec<String> = drain(session).iter().map(text).collect();
    assert_eq!(requests, expected);
    assert!(!session.wants_to_send());
}

#[test]
fn first_requests_follow_the_order_of_calls_and_only_the_first_carries_the_node() {
    let mut session = session(&[("z", &["*"]), ("b", &["n"]), ("a", &["*"])]);
    let requests = drain(&mut session);
    assert_eq!(requests.iter().map(text).collect::<Vec<_>>(), ["z", "b +n", "a"]);
    let ids: Vec<_> = requests
        .iter()
        .map(|r| r.node.as_ref().map(|n| n.id.as_str()))
        .collect();
    assert_eq!(ids, [Some("me"), None, None]);
}

#[test]
fn a_type_without_names_is_not_asked_for_as_that_would_mean_everything() {
    let mut session = session(&[(EDS, &[])]);
    check_requests(&mut session, &[]);
    session.subscriptions_mut().set_names(EDS, set(&["a"]));
    check_requests(&mut session, &["eds +a"]);
    session.subscriptions_mut().set_names(EDS, set(&[]));
    check_requests(&mut session, &["eds -a"]);
}

#[test]
fn an_ack_says_nothing_of_subscriptions_and_goes_before_their_changes() {
    let mut session = session(&[(CDS, &["*"]), (EDS, &["old"])]);
    drain(&mut session);
    let mut owner = Owner {
        then_names: Some((EDS, vec!["new"])),
        ..Owner::default()
    };
    session.on_response(response(CDS, "1", &["c"], &[]), &mut owner);
    check_requests(&mut session, &["cds #1", "eds +new -old"]);
}

#[test]
fn a_nack_names_what_was_rejected_and_the_rest_counts_as_accepted() {
    let mut session = session(&[(CDS, &["*"])]);
    drain(&mut session);
    let mut owner = Owner {
        rejects: vec!["b", "d"],
        ..Owner::default()
    };
    session.on_response(response(CDS, "1", &["a@1", "b@1", "c@1", "d@1"], &[]), &mut owner);
    check_requests(&mut session, &["cds #1 !b: bad; d: bad"]);
    session.stream_opened();
    check_requests(&mut session, &["cds =a@1 =c@1"]);
    assert_eq!(session.machine.counters.updates_rejected, 1);
    assert_eq!(session.machine.counters.resources_rejected, 2);
}

#[test]
fn a_rejected_change_keeps_the_version_accepted_before() {
    let mut session = session(&[(CDS, &["*"])]);
    let mut owner = Owner::default();
    session.on_response(response(CDS, "1", &["a@1"], &[]), &mut owner);
    owner.rejects = vec!["a"];
    session.on_response(response(CDS, "2", &["a@2"], &[]), &mut owner);
    session.stream_opened();
    check_requests(&mut session, &["cds =a@1"]);
}

#[test]
fn empty_versions_are_named_on_reconnect_and_only_of_wanted_names() {
    let mut session = session(&[(CDS, &["*"]), (EDS, &["a", "b"])]);
    session.on_response(response(CDS, "1", &["c"], &[]), &mut Owner::default());
    session.on_response(response(EDS, "2", &["a", "b"], &[]), &mut Owner::default());
    session.stream_closed();
    session.subscriptions_mut().set_names(EDS, set(&["b", "new"]));
    check_requests(&mut session, &[]);
    session.stream_opened();
    check_requests(&mut session, &["cds =c@", "eds +b +new =b@"]);
}

#[test]
fn answers_do_not_outlive_their_stream() {
    let mut session = session(&[(CDS, &["*"])]);
    drain(&mut session);
    session.on_response(response(CDS, "1", &["c"], &[]), &mut Owner::default());
    session.stream_closed();
    session.stream_opened();
    check_requests(&mut session, &["cds =c@"]);
    assert_eq!(session.machine.counters.stale_nonces, 1);
}

#[test]
fn what_nobody_asked_for_is_dropped_counted_and_acked() {
    let mut session = session(&[(EDS, &["a"])]);
    drain(&mut session);
    let mut owner = Owner {
        rejects: vec!["gone"],
        ..Owner::default()
    };
    session.on_response(response(EDS, "1", &["gone", "a"], &["other"]), &mut owner);
    session.on_response(response(EDS, "2", &["gone"], &[]), &mut owner);
    session.on_response(response("nds", "3", &["x"], &[]), &mut owner);
    check_requests(&mut session, &["eds #1", "eds #2", "nds #3"]);
    assert_eq!(owner.updates.len(), 1);
    assert_eq!(owner.updates[0].added.len(), 1);
    assert!(owner.updates[0].removed.is_empty());
    assert_eq!(
        (
            session.machine.counters.unrequested,
            session.machine.counters.unrequested_types
        ),
        (3, 1)
    );
}

#[test]
fn removals_reach_the_owner_if_it_can_know_the_name() {
    let mut session = session(&[(CDS, &["*"]), (EDS, &["a"])]);
    let mut owner = Owner::default();
    session.on_response(response(CDS, "1", &["c"], &[]), &mut owner);
    session.on_response(response(CDS, "2", &[], &["c", "never-seen"]), &mut owner);
    session.on_response(response(EDS, "3", &[], &["a"]), &mut owner); // "does not exist"
    let removed: Vec<_> = owner.updates.iter().map(|u| u.removed.clone()).collect();
    assert_eq!(removed, [vec![], vec!["c".to_owned()], vec!["a".to_owned()]]);
    assert_eq!(session.machine.counters.unrequested, 1);
    session.stream_opened();
    check_requests(&mut session, &["cds", "eds +a"]);
}

#[test]
fn an_empty_wildcard_response_reaches_the_owner() {
    let mut session = session(&[(CDS, &["*"]), (EDS, &["a"])]);
    let mut owner = Owner::default();
    session.on_response(response(CDS, "1", &[], &[]), &mut owner);
    session.on_response(response(EDS, "2", &[], &[]), &mut owner);
    assert_eq!(
        owner.updates.iter().map(|u| &*u.type_url).collect::<Vec<_>>(),
        [CDS]
    );
}

#[test]
fn unsound_resources_are_rejected_before_the_owner_sees_them() {
    let mut session = session(&[(CDS, &["*"])]);
    session.on_response(response(CDS, "0", &["both"], &[]), &mut Owner::default());
    drain(&mut session);
    let mut response = response(CDS, "1", &["ok", "twice", "twice", "both"], &["both"]);
    response.resources.push(resource("other", "wrong-type", ""));
    response.resources.push(resource(CDS, "", ""));
    response.resources.push(DeltaResource {
        resource: None,
        ..resource(CDS, "hollow", "")
    });
    let mut owner = Owner::default();
    session.on_response(response, &mut owner);
    assert_eq!(
        owner.updates[0]
            .added
            .iter()
            .map(|r| r.name.as_str())
            .collect::<Vec<_>>(),
        ["ok"]
    );
    check_requests(
        &mut session,
        &[
            "cds #1 !twice: occurs more than once in one response; both: occurs more than once in one response; \
           wrong-type: is a \"other\" in a response of \"cds\"; resource without a name; \
           hollow: resource without a body",
        ],
    );
}

#[test]
fn a_heartbeat_changes_nothing() {
    let mut session = session(&[(EDS, &["a"])]);
    drain(&mut session);
    let mut response = response(EDS, "1", &[], &[]);
    let ttl = Some(Duration { seconds: 5, nanos: 0 });
    response.resources.push(DeltaResource {
        resource: None,
        ttl,
        ..resource(EDS, "a", "1")
    });
    session.on_response(response, &mut Owner::default());
    check_requests(&mut session, &["eds #1"]);
    assert_eq!(session.machine.counters.heartbeats, 1);
}

#[test]
fn a_name_dropped_and_wanted_again_is_renewed() {
    let mut session = session(&[(EDS, &["a", "b"])]);
    drain(&mut session);
    session.on_response(response(EDS, "1", &["a", "b"], &[]), &mut Owner::default());
    drain(&mut session);
    session.subscriptions_mut().set_names(EDS, set(&["b"]));
    session.subscriptions_mut().set_names(EDS, set(&["a", "b"]));
    check_requests(&mut session, &["eds -a", "eds +a"]);
    session.stream_opened();
    check_requests(&mut session, &["eds +a +b =b@"]);
}

#[test]
fn a_name_dropped_while_its_update_is_taken_is_not_kept() {
    let mut session = session(&[(EDS, &["a", "b"])]);
    let mut owner = Owner {
        then_names: Some((EDS, vec!["b"])),
        ..Owner::default()
    };
    drain(&mut session);
    session.on_response(response(EDS, "1", &["a", "b"], &[]), &mut owner);
    check_requests(&mut session, &["eds #1", "eds -a"]);
    session.stream_opened();
    check_requests(&mut session, &["eds +b =b@"]);
}

#[test]
fn wildcard_and_names_can_replace_each_other() {
    let mut session = session(&[(CDS, &["*"])]);
    drain(&mut session);
    session.on_response(response(CDS, "1", &["a", "b"], &[]), &mut Owner::default());
    session.subscriptions_mut().set_names(CDS, set(&["a"]));
    check_requests(&mut session, &["cds #1", "cds +a -*"]);
    session.subscriptions_mut().wildcard(CDS);
    check_requests(&mut session, &["cds +* -a"]);
}

#[test]
fn what_was_never_accepted_and_is_gone_after_a_reconnect_is_reported() {
    let mut session = session(&[(CDS, &["*"])]);
    let mut owner = Owner {
        rejects: vec!["bad", "worse"],
        ..Owner::default()
    };
    session.on_response(response(CDS, "1", &["good", "bad", "worse"], &[]), &mut owner);
    session.stream_opened();
    session.on_response(response(CDS, "1", &["worse"], &[]), &mut owner);
    session.on_response(response(CDS, "2", &[], &[]), &mut owner);
    let removed: Vec<_> = owner.updates.iter().map(|u| u.removed.clone()).collect();
    assert_eq!(removed, [vec![], vec!["bad".to_owned()], vec![]]);
}

#[test]
fn nothing_is_sent_without_a_stream() {
    let mut session = DeltaSession::new(Node::default(), Subscriptions::default());
    session.subscriptions_mut().wildcard(CDS);
    assert!(!session.wants_to_send());
    assert_eq!(session.next_request(), None);
}

/// Names with a time to live in seconds.
fn living(nonce: &str, resources: &[(&str, Option<i64>)]) -> DeltaResponse {
    let mut response = response(EDS, nonce, &[], &[]);
    let made = resources.iter().map(|(name, ttl)| DeltaResource {
        ttl: ttl.map(|seconds| Duration { seconds, nanos: 0 }),
        ..resource(EDS, name, "1")
    });
    response.resources.extend(made);
    response
}

fn heartbeat(nonce: &str, name: &str, seconds: i64) -> DeltaResponse {
    let mut response = living(nonce, &[(name, Some(seconds))]);
    response.resources[0].resource = None;
    response
}

const fn at(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}

#[test]
fn a_resource_goes_when_its_time_to_live_is_over_and_no_heartbeat_came() {
    let mut session = session(&[(EDS, &["a", "b", "c", "d"])]);
    let mut owner = Owner::default();
    let lives = [("a", Some(10)), ("b", Some(10)), ("c", Some(10)), ("d", None)];
    session.on_response(living("1", &lives), &mut owner);
    session.advance(at(8), &mut owner);
    session.on_response(heartbeat("2", "a", 10), &mut owner);
    session.on_response(living("3", &[("b", None)]), &mut owner); // lives for ever from now on
    session.on_response(heartbeat("4", "never-seen", 1), &mut owner);
    assert_eq!(session.next_deadline(), Some(at(10)));
    owner.updates.clear();
    session.stream_closed(); // the control plane is not needed for that
    session.advance(at(10), &mut owner);
    assert_eq!(owner.updates.len(), 1);
    assert_eq!(
        (&*owner.updates[0].type_url, &owner.updates[0].removed),
        (EDS, &vec!["c".to_owned()])
    );
    session.advance(at(17), &mut owner);
    assert_eq!(owner.updates.len(), 1);
    session.advance(at(18), &mut owner);
    assert_eq!(owner.updates[1].removed, ["a"]);
    assert_eq!(
        (session.next_deadline(), session.machine.counters.expired),
        (None, 2)
    );
    // What expired is not claimed to be here.
    session.stream_opened();
    check_requests(&mut session, &["eds +a +b +c +d =b@1 =d@1"]);
}

#[test]
fn a_refused_update_does_not_touch_the_life_of_the_version_before() {
    let mut session = session(&[(EDS, &["a"])]);
    let mut owner = Owner::default();
    session.on_response(living("1", &[("a", Some(10))]), &mut owner);
    owner.rejects = vec!["a"];
    session.on_response(living("2", &[("a", Some(99))]), &mut owner);
    session.on_response(living("3", &[("a", None)]), &mut owner);
    assert_eq!(session.next_deadline(), Some(at(10)));
}

#[test]
fn what_is_dropped_does_not_expire() {
    let mut session = session(&[(EDS, &["a", "b"])]);
    let mut owner = Owner::default();
    session.on_response(living("1", &[("a", Some(10)), ("b", Some(-3))]), &mut owner);
    session.subscriptions_mut().set_names(EDS, set(&["b"]));
    owner.updates.clear();
    session.advance(at(20), &mut owner);
    assert_eq!(owner.updates.len(), 1);
    assert_eq!(owner.updates[0].removed, ["b"], "a negative time is over at once");
}

#[test]
fn the_owner_names_what_travels_without_a_name() {
    struct Names(Vec<String>);
    impl Handler for Names {
        fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
            self.0.extend(update.added.iter().map(|r| r.name.clone()));
            Ok(())
        }

        fn resource_name(&self, _: &Any) -> Option<String> {
            Some("the table".to_owned())
        }
    }
    let mut session = session(&[("nds", &["*"])]);
    drain(&mut session);
    let mut names = Names(Vec::new());
    session.on_response(response("nds", "1", &[""], &[]), &mut names);
    check_requests(&mut session, &["nds #1"]);
    assert_eq!(names.0, ["the table"]);
}

fn health(error: Option<&str>) -> Report {
    Report {
        type_url: "health".into(),
        after: "lds".into(),
        error: error.map(|message| ReportedError {
            code: 500,
            message: message.to_owned(),
        }),
    }
}

#[test]
fn a_report_goes_once_a_stream_and_never_before_the_first_request_of_its_type() {
    let mut session = session(&[]);
    session.report(health(None));
    check_requests(&mut session, &[]);
    session.subscriptions_mut().wildcard(CDS);
    check_requests(&mut session, &["cds"]);
    session.subscriptions_mut().wildcard("lds");
    check_requests(&mut session, &["lds", "health"]);
    session.report(health(Some("probe: 503")));
    session.report(health(Some("probe: 500"))); // replaces the one before
    check_requests(&mut session, &["health !probe: 500"]);
    session.stream_closed();
    session.stream_opened();
    check_requests(&mut session, &["cds", "lds", "health !probe: 500"]);
}
