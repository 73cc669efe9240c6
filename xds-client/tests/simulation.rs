//! Sessions against a model control plane on a model network: thousands of seeds, each a different interleaving.
//!
//! The network keeps the order within a stream towards the control plane and within a type towards the client, mixes
//! types, and loses everything that is under way when a stream breaks. The owner refuses some resources; what clusters
//! it holds decides which endpoints it asks for; another set of names changes at random.
//!
//! After the noise the bad resources are made acceptable and everything is delivered. Then owner and control plane agree on
//! the subscriptions and on the resources, and every response of the last stream was answered.
#![allow(clippy::unwrap_used)]

mod simulation {
    pub(crate) mod delta;
    pub(crate) mod owner;
    pub(crate) mod sotw;
    pub(crate) mod world;
}

use std::time::Duration;

use simulation::owner::Owner;
use simulation::world::{CLUSTERS, ENDPOINTS, SECRETS, World};
use xds_client::{DeltaSession, Node, Session, SotwSession, Subscriptions};

const SEEDS: u64 = 10_000;
const STEPS: usize = 120;

/// A control plane of the model, one stream of it.
pub(crate) trait Plane {
    type Session: Session;
    fn new(versions: bool) -> Self;
    /// Takes a request and checks that it is legal.
    fn receive(&mut self, request: <Self::Session as Session>::Request, world: &World);
    /// Says what changed since it spoke last of it.
    fn push(&mut self, world: &World, random: &mut fastrand::Rng);
    /// The next response of a type chosen at random, if any is under way.
    fn deliver(&mut self, random: &mut fastrand::Rng) -> Option<<Self::Session as Session>::Response>;
    /// Tells the owner what this response may remove.
    fn announce(response: &<Self::Session as Session>::Response, owner: &mut Owner);
    /// At the end: nothing unanswered, and exactly these subscriptions.
    fn check_settled(&self, subscriptions: &Subscriptions, seed: u64);
}

fn simulate<P: Plane>(seed: u64, new: fn(Node, Subscriptions) -> P::Session) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(&mut random);
    let mut owner = Owner::default();
    let mut wishes = Subscriptions::default();
    wishes.wildcard(CLUSTERS);
    let mut session = new(
        Node {
            id: "sim".into(),
            ..Node::default()
        },
        wishes,
    );
    let versions = random.bool();
    let mut stream: Option<(P, Vec<_>)> = None;
    let mut now = Duration::ZERO;
    for _ in 0..STEPS {
        now += Duration::from_millis(random.u64(..40));
        session.advance(now, &mut owner);
        let Some((plane, upstream)) = &mut stream else {
            match random.u8(..4) {
                0 => world.change(&mut random),
                1 => owner.change_secrets(session.subscriptions_mut(), &mut random),
                _ => {
                    session.stream_opened();
                    stream = Some((P::new(versions), Vec::new()));
                }
            }
            continue;
        };
        match random.u8(..40) {
            0 => {
                session.stream_closed();
                stream = None;
            }
            1..4 => world.change(&mut random),
            4..8 => owner.change_secrets(session.subscriptions_mut(), &mut random),
            8..14 => plane.push(&world, &mut random),
            14..22 => upstream.extend(session.next_request()),
            22..31 if !upstream.is_empty() => plane.receive(upstream.remove(0), &world),
            _ => {
                if let Some(response) = plane.deliver(&mut random) {
                    P::announce(&response, &mut owner);
                    session.on_response(response, &mut owner);
                }
            }
        }
    }

    // Quiet: no bad resource is left, and all that is under way arrives.
    world.heal();
    let (mut plane, mut upstream) = stream.unwrap_or_else(|| {
        session.stream_opened();
        (P::new(versions), Vec::new())
    });
    for round in 0.. {
        assert!(
            round < 1_000,
            "seed {seed}: the session and the control plane never come to rest"
        );
        // Whatever is held back may go now.
        now += Duration::from_secs(2);
        session.advance(now, &mut owner);
        plane.push(&world, &mut random);
        upstream.extend(std::iter::from_fn(|| session.next_request()));
        let mut quiet = upstream.is_empty() && session.next_deadline().is_none();
        for request in upstream.drain(..) {
            plane.receive(request, &world);
        }
        while let Some(response) = plane.deliver(&mut random) {
            quiet = false;
            P::announce(&response, &mut owner);
            session.on_response(response, &mut owner);
        }
        if quiet {
            break;
        }
    }
    let subscriptions = &*session.subscriptions_mut();
    plane.check_settled(subscriptions, seed);
    for type_url in [CLUSTERS, ENDPOINTS, SECRETS] {
        let expected = match subscriptions.names(type_url) {
            None => Default::default(),
            Some(names) => world.visible(type_url, names),
        };
        assert_eq!(owner.held(type_url), expected, "seed {seed}: {type_url}");
    }
}

#[test]
fn delta_sessions_converge_whatever_happens_on_the_way() {
    (0..SEEDS).for_each(|seed| simulate::<simulation::delta::DeltaPlane>(seed, DeltaSession::new));
}

#[test]
fn state_of_the_world_sessions_converge_whatever_happens_on_the_way() {
    (0..SEEDS).for_each(|seed| simulate::<simulation::sotw::SotwPlane>(seed, SotwSession::new));
}
