//! One test a rule of the state-of-the-world protocol.
#![allow(clippy::unwrap_used)]

use prost::Message;

use super::wrapper::WRAPPER_TYPE;
use super::*;
use crate::{Any, DeltaResource, Update};

const CDS: &str = "cds";
const SDS: &str = "sds";

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

    fn resource_name(&self, any: &Any) -> Option<String> {
        String::from_utf8(any.value.to_vec())
            .ok()
            .filter(|name| !name.is_empty())
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn session(wishes: &[(&str, &[&str])]) -> SotwSession {
    let mut subscriptions = Subscriptions::default();
    for (type_url, names) in wishes {
        subscriptions.set_names(type_url, set(names));
    }
    let mut session = SotwSession::new(
        Node {
            id: "me".into(),
            ..Node::default()
        },
        subscriptions,
    );
    session.stream_opened();
    session
}

/// `version` is also the nonce, with an `n` before it.
fn response(type_url: &str, version: &str, names: &[&str]) -> SotwResponse {
    let any = |name: &&str| Any {
        type_url: type_url.as_bytes().to_vec().into(),
        value: name.as_bytes().to_vec().into(),
    };
    SotwResponse {
        version_info: version.into(),
        nonce: format!("n{version}"),
        type_url: type_url.into(),
        resources: names.iter().map(any).collect(),
        ..SotwResponse::default()
    }
}

/// `type names @version #nonce !error`
fn text(request: &DiscoveryRequest) -> String {
    let mut text = format!("{} [{}]", request.type_url, request.resource_names.join(" "));
    text += &format!(" @{} #{}", request.version_info, request.response_nonce);
    if let Some(status) = &request.error_detail {
        text += &format!(" !{}", status.message);
    }
    text
}

fn drain(session: &mut SotwSession) -> Vec<DiscoveryRequest> {
    std::iter::from_fn(|| session.next_request()).collect()
}

fn check_requests(session: &mut SotwSession, expected: &[&str]) {
    let requests: Vec<String> = drain(session).iter().map(text).collect();
    assert_eq!(requests, expected);
    assert!(!session.wants_to_send());
}

#[test]
fn first_requests_follow_the_order_of_calls_and_only_the_first_carries_the_node() {
    let mut session = session(&[(CDS, &["*"]), (SDS, &["default", "ROOTCA"]), ("none", &[])]);
    let requests = drain(&mut session);
    assert_eq!(
        requests.iter().map(text).collect::<Vec<_>>(),
        ["cds [] @ #", "sds [ROOTCA default] @ #"]
    );
    assert_eq!(
        requests.iter().map(|r| r.node.is_some()).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn an_ack_repeats_names_and_carries_version_and_nonce() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    session.on_response(response(SDS, "1", &["a"]), &mut Owner::default());
    check_requests(&mut session, &["sds [a] @1 #n1"]);
}

#[test]
fn a_nack_keeps_the_version_accepted_last() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    let mut owner = Owner::default();
    session.on_response(response(SDS, "1", &["a"]), &mut owner);
    owner.rejects = vec!["a"];
    session.on_response(response(SDS, "2", &["a"]), &mut owner);
    check_requests(&mut session, &["sds [a] @1 #n1", "sds [a] @1 #n2 !a: bad"]);
}

#[test]
fn names_change_in_a_request_of_their_own_after_the_answer() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    let mut owner = Owner {
        rejects: vec!["a"],
        then_names: Some((SDS, vec!["a", "b"])),
        ..Owner::default()
    };
    session.on_response(response(SDS, "1", &["a"]), &mut owner);
    check_requests(&mut session, &["sds [a] @ #n1 !a: bad", "sds [a b] @ #n1"]);
    session.subscriptions_mut().set_names(SDS, set(&["b"]));
    check_requests(&mut session, &["sds [b] @ #n1"]);
    session.subscriptions_mut().unsubscribe(SDS);
    check_requests(&mut session, &["sds [] @ #n1"]);
}

#[test]
fn a_nack_that_crossed_with_a_change_of_names_is_followed_by_the_names() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    let mut owner = Owner::default();
    session.on_response(response(SDS, "1", &["a"]), &mut owner);
    session.subscriptions_mut().set_names(SDS, set(&["a", "b"]));
    check_requests(&mut session, &["sds [a] @1 #n1", "sds [a b] @1 #n1"]);
    owner.rejects = vec!["a"];
    session.on_response(response(SDS, "2", &["a"]), &mut owner); // sent before the control plane read of b
    check_requests(&mut session, &["sds [a b] @1 #n2 !a: bad", "sds [a b] @1 #n2"]);
    session.on_response(response(SDS, "3", &["b"]), &mut owner);
    check_requests(&mut session, &["sds [a b] @3 #n3"]);
}

#[test]
fn a_wildcard_response_is_the_whole_set_and_one_by_name_is_not() {
    let mut session = session(&[(CDS, &["*"]), (SDS, &["a", "b"])]);
    let mut owner = Owner::default();
    session.on_response(response(CDS, "1", &["c", "d"]), &mut owner);
    session.on_response(response(CDS, "2", &["c"]), &mut owner);
    session.on_response(response(SDS, "3", &["a", "b"]), &mut owner);
    session.on_response(response(SDS, "4", &["a"]), &mut owner);
    session.on_response(response(SDS, "5", &[]), &mut owner);
    let seen: Vec<_> = owner
        .updates
        .iter()
        .map(|u| (u.full_state, u.removed.clone()))
        .collect();
    let nothing = Vec::<String>::new;
    assert_eq!(
        seen,
        [
            (true, nothing()),
            (true, vec!["d".to_owned()]),
            (false, nothing()),
            (false, nothing())
        ]
    );
}

#[test]
fn a_resource_without_a_name_removes_nothing() {
    let mut session = session(&[(CDS, &["*"])]);
    let mut owner = Owner::default();
    session.on_response(response(CDS, "1", &["c", "d"]), &mut owner);
    session.on_response(response(CDS, "2", &["c", ""]), &mut owner);
    assert_eq!(owner.updates[1].removed, Vec::<String>::new());
    assert_eq!(
        text(&drain(&mut session)[1]),
        "cds [] @1 #n2 !resource without a name"
    );
}

#[test]
fn what_nobody_asked_for_is_dropped_counted_and_acked() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    let mut owner = Owner {
        rejects: vec!["other"],
        ..Owner::default()
    };
    session.on_response(response(SDS, "1", &["other"]), &mut owner);
    session.on_response(response("nds", "2", &["x"]), &mut owner);
    check_requests(&mut session, &["sds [a] @1 #n1", "nds [] @2 #n2"]);
    assert!(owner.updates.is_empty());
    assert_eq!(
        (
            session.machine.counters.unrequested,
            session.machine.counters.unrequested_types
        ),
        (1, 1)
    );
}

#[test]
fn a_reconnect_names_the_version_only_if_nothing_is_missing() {
    let mut session = session(&[(CDS, &["*"]), (SDS, &["a"])]);
    session.on_response(response(CDS, "1", &["c"]), &mut Owner::default());
    session.on_response(response(SDS, "2", &["a"]), &mut Owner::default());
    session.stream_opened();
    check_requests(&mut session, &["cds [] @1 #", "sds [a] @2 #"]);
    session.subscriptions_mut().set_names(SDS, set(&["a", "b"]));
    session.stream_opened();
    check_requests(&mut session, &["cds [] @1 #", "sds [a b] @ #"]);
}

#[test]
fn a_name_dropped_and_wanted_again_is_renewed() {
    let mut session = session(&[(SDS, &["a", "b"])]);
    drain(&mut session);
    session.on_response(response(SDS, "1", &["a", "b"]), &mut Owner::default());
    drain(&mut session);
    session.subscriptions_mut().set_names(SDS, set(&["b"]));
    session.subscriptions_mut().set_names(SDS, set(&["a", "b"]));
    check_requests(&mut session, &["sds [b] @1 #n1", "sds [a b] @1 #n1"]);
}

#[test]
fn renewing_a_name_that_does_not_exist_ends() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    session.subscriptions_mut().unsubscribe(SDS);
    session.subscriptions_mut().set_names(SDS, set(&["a"]));
    let mut rounds = 0_u8;
    for n in 1..100 {
        drain(&mut session);
        session.on_response(response(SDS, &n.to_string(), &[]), &mut Owner::default());
        rounds += u8::from(drain(&mut session).len() > 1);
    }
    assert_eq!(rounds, MAX_RENEWALS);
}

#[test]
fn a_wrapped_resource_is_unwrapped() {
    let mut session = session(&[(SDS, &["a"])]);
    let inner = Any {
        type_url: SDS.into(),
        value: b"x".to_vec().into(),
    };
    let wrapped = DeltaResource {
        name: "a".into(),
        resource: Some(inner.clone()),
        ..DeltaResource::default()
    };
    let mut response = response(SDS, "1", &[]);
    response.resources.push(Any {
        type_url: WRAPPER_TYPE.into(),
        value: wrapped.encode_to_vec().into(),
    });
    let mut owner = Owner::default();
    session.on_response(response, &mut owner);
    assert_eq!(owner.updates[0].added[0].any, inner);
}

#[test]
fn names_after_a_wildcard_are_explicit_from_then_on() {
    let mut session = session(&[(CDS, &["*"])]);
    drain(&mut session);
    session.subscriptions_mut().set_names(CDS, set(&["a"]));
    check_requests(&mut session, &["cds [a] @ #"]);
    session.subscriptions_mut().wildcard(CDS);
    check_requests(&mut session, &["cds [*] @ #"]);
}

#[test]
fn a_new_name_that_does_not_exist_is_asked_for_once() {
    let mut session = session(&[(SDS, &["a"])]);
    drain(&mut session);
    session.on_response(response(SDS, "1", &["a"]), &mut Owner::default());
    session.subscriptions_mut().set_names(SDS, set(&["a", "missing"]));
    check_requests(&mut session, &["sds [a] @1 #n1", "sds [a missing] @1 #n1"]);
    for version in ["2", "3"] {
        session.on_response(response(SDS, version, &["a"]), &mut Owner::default());
        check_requests(
            &mut session,
            &[&format!("sds [a missing] @{version} #n{version}")],
        );
    }
}

#[test]
fn an_empty_set_is_applied_and_counted() {
    let mut session = session(&[(CDS, &["*"])]);
    let mut owner = Owner::default();
    session.on_response(response(CDS, "1", &[]), &mut owner);
    session.on_response(response(CDS, "2", &["a", "b"]), &mut owner);
    session.on_response(response(CDS, "3", &[]), &mut owner);
    session.on_response(response(CDS, "4", &[]), &mut owner);
    assert_eq!(owner.updates[2].removed, ["a", "b"]);
    assert!(owner.updates[2].full_state && owner.updates[3].removed.is_empty());
    assert_eq!(session.machine.counters.emptied_sets, 1);
}

#[test]
fn who_keeps_the_last_set_loses_nothing_and_acknowledges_all_the_same() {
    let mut session = session(&[(CDS, &["*"])]).keep_last_set(true);
    let mut owner = Owner::default();
    drain(&mut session);
    session.on_response(response(CDS, "1", &["a", "b"]), &mut owner);
    session.on_response(response(CDS, "2", &[]), &mut owner);
    session.on_response(response(CDS, "3", &["b"]), &mut owner);
    check_requests(&mut session, &["cds [] @1 #n1", "cds [] @2 #n2", "cds [] @3 #n3"]);
    assert!(owner.updates[1].removed.is_empty() && !owner.updates[1].full_state);
    assert_eq!(owner.updates[2].removed, ["a"], "what is not empty is applied");
    assert_eq!(session.machine.counters.emptied_sets, 1);
}

#[test]
fn a_wrapped_resource_expires_and_the_next_stream_asks_for_all() {
    let mut session = session(&[(CDS, &["*"])]);
    let mut owner = Owner::default();
    let wrapped = |body: Option<&str>| Any {
        type_url: WRAPPER_TYPE.into(),
        value: DeltaResource {
            name: "a".into(),
            ttl: Some(envoy_types::pb::google::protobuf::Duration { seconds: 5, nanos: 0 }),
            resource: body.map(|name| Any {
                type_url: CDS.into(),
                value: name.as_bytes().to_vec().into(),
            }),
            ..DeltaResource::default()
        }
        .encode_to_vec()
        .into(),
    };
    let mut first = response(CDS, "1", &["b"]);
    first.resources.push(wrapped(Some("a")));
    session.on_response(first, &mut owner);
    session.advance(Duration::from_secs(4), &mut owner);
    let mut second = response(CDS, "1", &["b"]);
    second.resources.push(wrapped(None));
    session.on_response(second, &mut owner);
    assert!(owner.updates[1].removed.is_empty(), "a heartbeat is no absence");
    session.advance(Duration::from_secs(9), &mut owner);
    assert_eq!(owner.updates[2].removed, ["a"]);
    session.stream_opened();
    check_requests(&mut session, &["cds [] @ #"]);
}
