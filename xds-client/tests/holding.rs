//! What the owner has from a copy on disk: the control plane is told, and says what of it is gone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use xds_client::{
    Any, DeltaResource, DeltaResponse, DeltaSession, Handler, Node, Rejection, Session, SotwResponse,
    SotwSession, Subscriptions, Update,
};

const TYPE: &str = "type.googleapis.com/t";

/// Notes what it is told.
#[derive(Default)]
struct Owner(Vec<(Vec<String>, Vec<String>)>);

impl Handler for Owner {
    fn on_update(&mut self, update: &Update, _: &mut Subscriptions) -> Result<(), Vec<Rejection>> {
        let added = update
            .added
            .iter()
            .map(|resource| resource.name.clone())
            .collect();
        self.0.push((added, update.removed.clone()));
        Ok(())
    }

    fn resource_name(&self, any: &Any) -> Option<String> {
        String::from_utf8(any.value.to_vec()).ok()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn wildcard() -> Subscriptions {
    let mut subscriptions = Subscriptions::default();
    subscriptions.wildcard(TYPE);
    subscriptions
}

fn any(name: &str) -> Any {
    Any {
        type_url: TYPE.into(),
        value: name.as_bytes().to_vec().into(),
    }
}

/// A part of the set, and what is gone.
fn delta(added: &[&str], removed: &[&str]) -> DeltaResponse {
    let resource = |name: &&str| DeltaResource {
        name: (*name).to_owned(),
        resource: Some(any(name)),
        ..DeltaResource::default()
    };
    DeltaResponse {
        type_url: TYPE.to_owned(),
        resources: added.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaResponse::default()
    }
}

#[test]
fn an_incremental_control_plane_is_told_on_the_first_request_of_a_stream() {
    for is_asked in [false, true] {
        let (mut session, mut owner) = (DeltaSession::new(Node::default(), wildcard()), Owner::default());
        if is_asked {
            session.stream_opened();
            assert!(
                session
                    .next_request()
                    .unwrap()
                    .initial_resource_versions
                    .is_empty()
            );
        }
        session.hold(TYPE, names(&["a", "b", "c"]));
        assert_eq!(session.wants_new_stream(), is_asked, "only a new stream can tell");
        session.stream_opened();
        assert!(!session.wants_new_stream());
        let versions = session.next_request().unwrap().initial_resource_versions;
        assert!(
            versions.len() == 3 && versions.values().all(String::is_empty),
            "{versions:?}"
        );
        session.on_response(delta(&["a"], &["b"]), &mut owner);
        session.on_response(delta(&["c", "d"], &[]), &mut owner);
        let told = [
            (vec!["a".to_owned()], vec!["b".to_owned()]),
            (vec!["c".to_owned(), "d".to_owned()], vec![]),
        ];
        assert_eq!(owner.0, told, "the first response is not the whole set");
    }
}

#[test]
fn a_whole_set_says_by_itself_what_is_gone() {
    let (mut session, mut owner) = (SotwSession::new(Node::default(), wildcard()), Owner::default());
    session.stream_opened();
    assert!(session.next_request().is_some());
    session.hold(TYPE, names(&["a", "b"]));
    assert!(!session.wants_new_stream());
    let response = SotwResponse {
        type_url: TYPE.to_owned(),
        resources: vec![any("a")],
        ..SotwResponse::default()
    };
    session.on_response(response, &mut owner);
    assert_eq!(owner.0, [(vec!["a".to_owned()], vec!["b".to_owned()])]);
}
