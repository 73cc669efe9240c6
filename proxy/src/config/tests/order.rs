//! Make before break: whatever the order in which an old configuration is replaced by a new one, what worked goes on to work until what
//! replaces it is complete.
//!
//! What a control plane breaks itself stays broken, as in Envoy: routes that name a cluster before it has come, or when it has been
//! taken back, get 503 `NC`.
use outrigger_model::decode::{
    CLUSTER_TYPE, LISTENER_TYPE, LOAD_ASSIGNMENT_TYPE, ROUTE_TABLE_TYPE, SECRET_TYPE,
};

use super::*;

const TYPES: [&str; 5] = [
    CLUSTER_TYPE,
    LOAD_ASSIGNMENT_TYPE,
    LISTENER_TYPE,
    ROUTE_TABLE_TYPE,
    SECRET_TYPE,
];

const LISTENERS: [&str; 4] = ["in", "out", "gone", "fresh"];

/// For ever, as istiod sets it.
const WAIT: Option<&str> = Some("0s");

/// Which of its two configurations the control plane means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Old,
    New,
}

type ByType = BTreeMap<&'static str, BTreeMap<String, Resource>>;

/// Both configurations.
///
/// `in` gets TLS and another table; its cluster `web` another service and TLS, while the endpoints of the old service move; `out` goes
/// from the cluster `old` to the cluster `new`; the listener `gone` gives way to `fresh`, both with routes to `api`, whose settings change.
struct Plane {
    old: ByType,
    new: ByType,
}

impl Plane {
    fn new() -> Self {
        let by_type = |lists: [Vec<Value>; 5]| {
            let named = lists.iter().map(|list| resources(list));
            TYPES.into_iter().zip(named).collect()
        };
        let mut api = cluster("api", "api", WAIT, None);
        let [certificate_c, certificate_d] = ["c", "d"].map(certificate);
        let old = [
            vec![
                cluster("web", "s1", WAIT, None),
                api.clone(),
                cluster("old", "old", WAIT, None),
            ],
            vec![
                endpoints("s1", "10.0.0.1"),
                endpoints("api", "10.0.1.1"),
                endpoints("old", "10.0.2.1"),
            ],
            vec![
                listener("in", 1, &rds("r1", WAIT), None),
                listener("out", 2, &rds("out", WAIT), None),
                listener("gone", 3, &rds("gone", WAIT), None),
            ],
            vec![routes("r1", "web"), routes("out", "old"), routes("gone", "api")],
            vec![],
        ];
        api["connectTimeout"] = json!("3s");
        let new = [
            vec![
                cluster("web", "s2", WAIT, Some(secret_ref("c", WAIT))),
                api,
                cluster("new", "new", WAIT, None),
            ],
            vec![
                endpoints("s1", "10.0.0.11"),
                endpoints("s2", "10.0.0.2"),
                endpoints("api", "10.0.1.2"),
                endpoints("new", "10.0.3.1"),
            ],
            vec![
                listener("in", 1, &rds("r2", WAIT), Some(secret_ref("d", WAIT))),
                listener("out", 2, &rds("out", WAIT), None),
                listener("fresh", 4, &rds("fresh", WAIT), None),
            ],
            vec![routes("r2", "web"), routes("out", "new"), routes("fresh", "api")],
            vec![certificate_c, certificate_d],
        ];
        Self {
            old: by_type(old),
            new: by_type(new),
        }
    }

    fn of(&self, age: Age) -> &ByType {
        match age {
            Age::Old => &self.old,
            Age::New => &self.new,
        }
    }
}

/// The control, and what the control plane means and has sent.
struct World<'a> {
    plane: &'a Plane,
    control: Control,
    ages: BTreeMap<&'static str, Age>,
    /// What the control was sent last, by type.
    sent: ByType,
    history: Vec<String>,
}

impl<'a> World<'a> {
    /// With the configuration of `age` in force.
    fn new(plane: &'a Plane, age: Age) -> Self {
        let mut world = Self {
            plane,
            control: control(),
            ages: TYPES.into_iter().map(|type_url| (type_url, age)).collect(),
            sent: ByType::default(),
            history: Vec::new(),
        };
        world.deliver_all();
        assert!(world.control.is_initialized());
        world
    }

    /// The names of this type that the control waits for and the control plane has.
    fn outdated(&self, type_url: &'static str) -> Vec<String> {
        let meant = &self.plane.of(self.ages[type_url])[type_url];
        let sent = self.sent.get(type_url);
        if [CLUSTER_TYPE, LISTENER_TYPE].contains(&type_url) {
            let is_sent = sent.is_some_and(|sent| sent == meant);
            return if is_sent {
                Vec::new()
            } else {
                meant.keys().cloned().collect()
            };
        }
        let wanted = wanted(&self.control, type_url).into_iter();
        let differs = |name: &String| {
            meant.contains_key(name) && sent.and_then(|sent| sent.get(name)) != meant.get(name)
        };
        wanted.filter(differs).collect()
    }

    /// Sends these resources of the type; of clusters and listeners always all.
    fn deliver(&mut self, type_url: &'static str, names: &[String]) {
        let before = LISTENERS.map(|name| ask(&self.control, name));
        let meant = &self.plane.of(self.ages[type_url])[type_url];
        let added: Vec<Resource> = names.iter().map(|name| meant[name].clone()).collect();
        let sent = self.sent.entry(type_url).or_default();
        let mut removed = Vec::new();
        if [CLUSTER_TYPE, LISTENER_TYPE].contains(&type_url) {
            removed = sent
                .keys()
                .filter(|name| !meant.contains_key(*name))
                .cloned()
                .collect();
            *sent = meant.clone();
        } else {
            sent.extend(
                added
                    .iter()
                    .map(|resource| (resource.name.clone(), resource.clone())),
            );
        }
        let short = type_url.rsplit('.').next().unwrap();
        self.history.push(format!("{short} {names:?} -{removed:?}"));
        let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
        apply(&mut self.control, type_url, added, &removed).unwrap();
        self.forget_unwanted();
        self.check(type_url, &before, &removed);
    }

    /// What is no longer asked for is sent again when it is.
    fn forget_unwanted(&mut self) {
        for type_url in [LOAD_ASSIGNMENT_TYPE, ROUTE_TABLE_TYPE, SECRET_TYPE] {
            let wanted = wanted(&self.control, type_url);
            self.sent
                .entry(type_url)
                .or_default()
                .retain(|name, _| wanted.contains(name));
        }
    }

    /// Sends what is outdated until nothing is.
    fn deliver_all(&mut self) {
        while let Some((type_url, names)) = TYPES
            .into_iter()
            .map(|type_url| (type_url, self.outdated(type_url)))
            .find(|(_, names)| !names.is_empty())
        {
            self.deliver(type_url, &names);
        }
    }

    fn check(&self, type_url: &str, before: &[Result<Served, Unserved>; 4], removed: &[&str]) {
        for (name, before) in LISTENERS.iter().zip(before) {
            let after = ask(&self.control, name);
            let may_be = match (before, &after) {
                (_, Ok(served)) => is_whole(served),
                (Err(_), Err(_)) => true,
                (Ok(_), Err(Unserved::NoListener)) => type_url == LISTENER_TYPE && removed.contains(name),
                // The route goes elsewhere now, or the cluster was taken back: by the control plane's own order.
                (Ok(before), Err(Unserved::NoCluster { cluster, .. })) => {
                    *cluster != before.cluster
                        || (type_url == CLUSTER_TYPE && removed.contains(&cluster.as_str()))
                }
                (Ok(_), Err(_)) => false,
            };
            assert!(may_be, "{name}: {before:?}, then {after:?}\n{:#?}", self.history);
        }
    }
}

/// Nothing of the old configuration is mixed with the new one inside a listener or a cluster.
fn is_whole(served: &Served) -> bool {
    let host = served.host.ip().to_string();
    let listener = match served.route.as_str() {
        "r1" => !served.tls,
        "r2" => served.tls,
        _ => true,
    };
    let cluster = match host.as_str() {
        "10.0.0.1" | "10.0.0.11" => !served.upstream_tls,
        "10.0.0.2" => served.upstream_tls,
        _ => true,
    };
    listener && cluster
}

/// Where requests go when the configuration of `age` is in force whole.
fn check_served(world: &World<'_>, age: Age) {
    let (web, out, other) = match age {
        Age::Old => ("10.0.0.1", "10.0.2.1", ("gone", "fresh", "10.0.1.1")),
        Age::New => ("10.0.0.2", "10.0.3.1", ("fresh", "gone", "10.0.1.2")),
    };
    let host = |listener: &str| ask(&world.control, listener).map(|served| served.host.ip().to_string());
    let history = &world.history;
    assert_eq!(host("in").as_deref(), Ok(web), "{history:#?}");
    assert_eq!(host("out").as_deref(), Ok(out), "{history:#?}");
    assert_eq!(host(other.0).as_deref(), Ok(other.2), "{history:#?}");
    assert_eq!(host(other.1), Err(Unserved::NoListener), "{history:#?}");
    let meant = world.plane.of(age);
    for type_url in [ROUTE_TABLE_TYPE, SECRET_TYPE] {
        let names: BTreeSet<String> = meant[type_url].keys().cloned().collect();
        assert_eq!(wanted(&world.control, type_url), names, "{history:#?}");
    }
}

fn permutations(items: &[&'static str]) -> Vec<Vec<&'static str>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (index, first) in items.iter().enumerate() {
        let rest: Vec<_> = [&items[..index], &items[index + 1..]].concat();
        for mut order in permutations(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}

#[test]
fn every_order_of_the_types_leads_from_one_configuration_to_the_other() {
    let plane = Plane::new();
    for (from, to) in [(Age::Old, Age::New), (Age::New, Age::Old)] {
        for order in permutations(&TYPES) {
            let mut world = World::new(&plane, from);
            for type_url in order {
                world.ages.insert(type_url, to);
                let names = world.outdated(type_url);
                world.deliver(type_url, &names);
            }
            world.deliver_all();
            check_served(&world, to);
        }
    }
}

#[test]
fn every_interleaving_of_old_and_new_leads_to_what_is_meant_last() {
    let plane = Plane::new();
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(&plane, if random.bool() { Age::Old } else { Age::New });
        for _ in 0..random.usize(5..40) {
            let type_url = TYPES[random.usize(0..TYPES.len())];
            if random.u8(0..4) == 0 {
                let age = if random.bool() { Age::Old } else { Age::New };
                world.ages.insert(type_url, age);
            }
            let mut names = world.outdated(type_url);
            if ![CLUSTER_TYPE, LISTENER_TYPE].contains(&type_url) {
                names.retain(|_| random.bool());
            }
            if !names.is_empty() {
                world.deliver(type_url, &names);
            }
        }
        let last = if random.bool() { Age::Old } else { Age::New };
        world.ages.values_mut().for_each(|age| *age = last);
        world.deliver_all();
        check_served(&world, last);
    }
}

#[test]
fn in_the_order_of_ads_no_request_fails() {
    let plane = Plane::new();
    let mut world = World::new(&plane, Age::Old);
    let served = |world: &World<'_>| ["in", "out"].map(|name| ask(&world.control, name));
    // Clusters that go are taken back last.
    let both: Vec<Resource> = [&plane.new, &plane.old]
        .iter()
        .flat_map(|plane| plane[CLUSTER_TYPE].values().cloned())
        .filter(|resource| resource.name != "web" || *resource == plane.new[CLUSTER_TYPE]["web"])
        .collect();
    apply(&mut world.control, CLUSTER_TYPE, both, &[]).unwrap();
    for type_url in [
        LOAD_ASSIGNMENT_TYPE,
        SECRET_TYPE,
        LISTENER_TYPE,
        ROUTE_TABLE_TYPE,
        CLUSTER_TYPE,
    ] {
        world.ages.insert(type_url, Age::New);
        let names = world.outdated(type_url);
        if !names.is_empty() {
            world.deliver(type_url, &names);
        }
        assert!(
            served(&world).iter().all(Result::is_ok),
            "{:?}\n{:#?}",
            served(&world),
            world.history
        );
    }
    world.deliver_all();
    check_served(&world, Age::New);
}

#[test]
fn a_cluster_that_waits_to_be_replaced_follows_its_own_endpoints() {
    let plane = Plane::new();
    let mut world = World::new(&plane, Age::Old);
    let host = |world: &World<'_>| ask(&world.control, "in").unwrap().host.ip().to_string();
    for (type_url, name) in [(CLUSTER_TYPE, "web"), (LOAD_ASSIGNMENT_TYPE, "s2")] {
        let resource = plane.new[type_url][name].clone();
        apply(&mut world.control, type_url, vec![resource], &[]).unwrap();
        assert_eq!(host(&world), "10.0.0.1", "the new one waits for its secret");
    }
    assert!(wanted(&world.control, LOAD_ASSIGNMENT_TYPE).contains("s1"));
    let moved = plane.new[LOAD_ASSIGNMENT_TYPE]["s1"].clone();
    apply(&mut world.control, LOAD_ASSIGNMENT_TYPE, vec![moved], &[]).unwrap();
    assert_eq!(host(&world), "10.0.0.11");
    let secret = plane.new[SECRET_TYPE]["c"].clone();
    apply(&mut world.control, SECRET_TYPE, vec![secret], &[]).unwrap();
    assert_eq!(host(&world), "10.0.0.2");
    assert!(
        !wanted(&world.control, LOAD_ASSIGNMENT_TYPE).contains("s1"),
        "nobody needs it any more"
    );
}

#[test]
fn a_listener_that_waits_to_be_replaced_follows_its_own_routes() {
    let plane = Plane::new();
    let mut world = World::new(&plane, Age::Old);
    let host = |world: &World<'_>| ask(&world.control, "in").unwrap().host.ip().to_string();
    let waiting = plane.new[LISTENER_TYPE]["in"].clone();
    apply(&mut world.control, LISTENER_TYPE, vec![waiting], &[]).unwrap();
    let elsewhere = resources(&[routes("r1", "api")]);
    apply(
        &mut world.control,
        ROUTE_TABLE_TYPE,
        elsewhere.into_values().collect(),
        &[],
    )
    .unwrap();
    assert_eq!(host(&world), "10.0.1.1");
    // Back to what it was, before the new one was complete.
    let before = plane.old[LISTENER_TYPE]["in"].clone();
    apply(&mut world.control, LISTENER_TYPE, vec![before], &[]).unwrap();
    let back = plane.old[ROUTE_TABLE_TYPE]["r1"].clone();
    apply(&mut world.control, ROUTE_TABLE_TYPE, vec![back], &[]).unwrap();
    assert_eq!(
        host(&world),
        "10.0.0.1",
        "the chain that stayed has the table that changes"
    );
}
