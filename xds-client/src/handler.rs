//! What the session and its owner say to each other.
//!
//! The session speaks of names, versions and opaque [`Any`]s; what a resource means is the owner's business.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use crate::{Any, Subscriptions};

/// One resource as the control plane sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Unique within its type.
    pub name: String,
    /// Opaque; often empty (istiod sends no version with clusters, listeners, routes and endpoints).
    /// In the state-of-the-world protocol: the version of the whole response.
    pub version: String,
    /// The bytes, untouched, and a part of the response: copy what is to stay. Its `type_url` equals the update's.
    pub any: Any,
}

/// One response of the control plane, reduced to what the owner asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The type of everything in this update.
    pub type_url: Arc<str>,
    /// Version of the response (`system_version_info` in delta); for people and dumps.
    pub version: String,
    /// New or changed, in the order of the response; no name occurs twice.
    pub added: Vec<Resource>,
    /// Gone. Of a wildcard subscription only names that the owner has seen; of a subscription by name
    /// also "this does not exist" for a name that was never delivered.
    pub removed: Vec<String>,
    /// The response was the whole set (state of the world, wildcard). `removed` already holds what was absent
    /// from it, so that an owner may ignore this.
    pub full_state: bool,
}

/// Why the owner (or the session, for what it can judge itself) does not take one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Name of the resource; empty if it has none, or if the response as a whole is meant.
    pub resource: String,
    /// Field path and cause, for the person who reads the control plane's log.
    pub reason: String,
}

/// Something that the owner tells the control plane by a request that asks for nothing, such as the health of what it
/// serves (istiod's `HealthInformation`).
///
/// Sent once on each stream, never as its first message, and again when it is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Type of the request.
    pub type_url: String,
    /// Sent only after the first request of this type.
    pub after: String,
    /// What is wrong, if something is: the request's error detail.
    pub error: Option<ReportedError>,
}

/// What is wrong with what the owner reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedError {
    /// Whatever the control plane understands by it; not necessarily a code of gRPC (istiod's agents say 500).
    pub code: i32,
    /// For people; what is too long is cut.
    pub message: String,
}

/// What happens to the connection, for stats and readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// Connected; the first requests are on their way.
    Connected,
    /// The first response on this connection arrived: the control plane answers.
    Answered,
    /// A connection or an attempt at one ended.
    Disconnected {
        /// Whether [`ConnectionEvent::Connected`] came before.
        was_connected: bool,
        /// Names the control plane and says what happened.
        reason: String,
        /// Wait before the next attempt.
        retry_in: Duration,
    },
}

/// The owner of the resources.
pub trait Handler {
    /// Takes one update: apply what is good, answer with what is not.
    ///
    /// Called once per response, but not for a by-name response of which nothing was asked for; and when resources
    /// expire that came with a time to live, with their names as `removed`.
    /// What is not named in a rejection must have been applied when this returns: on the next connection the
    /// session tells the control plane that it is here. `subscriptions` may be changed (a response with clusters
    /// leads to a request for their endpoints); the change goes out after the answer to this update.
    ///
    /// # Errors
    /// The rejected resources. They, and only they, are named in the NACK. An empty list counts as `Ok`.
    fn on_update(&mut self, update: &Update, subscriptions: &mut Subscriptions)
    -> Result<(), Vec<Rejection>>;

    /// Told of each connect and disconnect.
    fn on_connection(&mut self, event: ConnectionEvent) {
        let _ = event;
    }

    /// The name of a resource that travels without one: all of them in the state of the world, and in increments
    /// those that are the only ones of their type.
    ///
    /// The default reads field 1 as a string: that is where every xDS v3 resource type has its name
    /// (`ClusterLoadAssignment.cluster_name` included). `None` rejects the resource. An owner that subscribes to a type
    /// without names (istiod's name tables) gives it one here.
    fn resource_name(&self, any: &Any) -> Option<String> {
        first_string_field(any)
    }
}

impl<H: Handler + ?Sized> Handler for &mut H {
    fn on_update(
        &mut self,
        update: &Update,
        subscriptions: &mut Subscriptions,
    ) -> Result<(), Vec<Rejection>> {
        (**self).on_update(update, subscriptions)
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        (**self).on_connection(event);
    }

    fn resource_name(&self, any: &Any) -> Option<String> {
        (**self).resource_name(any)
    }
}

/// Any message whose field 1 is a string; prost skips the other fields.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// The name of a resource of Envoy's: field 1, a string that is not empty. For owners that name some types themselves.
pub fn first_string_field(any: &Any) -> Option<String> {
    let named = Named::decode(&*any.value).ok()?;
    (!named.name.is_empty()).then_some(named.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_resource_is_its_first_field() {
        let check = |value: &[u8], expected: Option<&str>| {
            let any = Any {
                type_url: "t".into(),
                value: value.to_vec().into(),
            };
            assert_eq!(first_string_field(&any).as_deref(), expected, "{value:?}");
        };
        check(b"\x0a\x02ab", Some("ab"));
        check(b"\x12\x01x\x0a\x02ab", Some("ab")); // another field first
        check(b"", None);
        check(b"\x08\x01", None); // field 1 is a number
        check(b"\x0a\x7fab", None); // cut off
    }
}
