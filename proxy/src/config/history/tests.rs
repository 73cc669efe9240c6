//! What is kept, what is forgotten, and what lies between two versions.
use super::*;

const TYPE: &str = "t";

/// A configuration and its history.
struct Scene {
    history: History,
    now: BTreeMap<String, String>,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        Self {
            history: History::new(limits),
            now: BTreeMap::new(),
        }
    }

    /// One response: names and contents; no content removes.
    fn apply(&mut self, changes: &[(&str, Option<&str>)]) {
        let mut noted = Vec::new();
        for (name, content) in changes {
            let before = match content {
                Some(content) => self.now.insert((*name).to_owned(), (*content).to_owned()),
                None => self.now.remove(*name),
            };
            noted.push(Change {
                name: (*name).into(),
                before: before.map(Bytes::from),
            });
        }
        let now = self.now.clone();
        self.history
            .record(TYPE, "v", noted, |name| now.contains_key(name));
    }

    fn differences(&self, from: u64, to: u64) -> Result<Vec<String>, UnknownVersion> {
        let current = |_: &str, name: &str| self.now.get(name).cloned().map(Bytes::from);
        let text = |bytes: Option<Bytes>| {
            bytes.map_or_else(
                || "-".to_owned(),
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        let differences = self.history.differences(from, to, current)?;
        let line = |each: Difference| format!("{}: {} {}", each.name, text(each.before), text(each.after));
        Ok(differences.into_iter().map(line).collect())
    }
}

fn three() -> Scene {
    let mut scene = Scene::new(Limits::default());
    scene.apply(&[("a", Some("1")), ("b", Some("1"))]);
    scene.apply(&[("a", Some("2")), ("c", Some("1"))]);
    scene.apply(&[("a", Some("1")), ("b", None)]);
    scene
}

#[test]
fn any_two_versions_can_be_compared() {
    let scene = three();
    let check = |from, to, expected: &[&str]| {
        assert_eq!(
            scene.differences(from, to).expect("kept"),
            expected,
            "{from} {to}"
        );
    };
    check(0, 1, &["a: - 1", "b: - 1"]);
    check(1, 2, &["a: 1 2", "c: - 1"]);
    check(2, 3, &["a: 2 1", "b: 1 -"]);
    check(1, 3, &["b: 1 -", "c: - 1"]);
    check(3, 1, &["b: - 1", "c: 1 -"]);
    check(2, 2, &[]);
    assert_eq!(
        scene.differences(1, 9),
        Err(UnknownVersion::Newer { wanted: 9, newest: 3 })
    );
    let totals: Vec<_> = scene.history.summaries().iter().map(|each| each.totals).collect();
    let expected = [(0, 1, 1), (1, 1, 0), (2, 0, 0)];
    assert_eq!(
        totals,
        expected.map(|(added, changed, removed)| Totals {
            added,
            changed,
            removed
        })
    );
}

#[test]
fn only_the_last_versions_are_kept() {
    let mut scene = Scene::new(Limits {
        versions: 2,
        ..Limits::default()
    });
    for content in ["1", "2", "3", "4"] {
        scene.apply(&[("a", Some(content))]);
    }
    assert_eq!(scene.differences(2, 4).expect("kept"), ["a: 2 4"]);
    assert_eq!(
        scene.differences(1, 4),
        Err(UnknownVersion::Forgotten { wanted: 1, oldest: 2 })
    );
}

#[test]
fn bytes_are_bounded_and_the_same_content_is_held_once() {
    let limits = Limits {
        versions: 100,
        bytes: 250,
    };
    let mut scene = Scene::new(limits);
    let (one, two) = ("1".repeat(100), "2".repeat(100));
    for round in 0..10 {
        scene.apply(&[("a", Some(if round % 2 == 0 { &one } else { &two }))]);
    }
    assert_eq!(scene.history.contents.bytes, 200);
    assert_eq!(
        scene.history.summaries().len(),
        10,
        "two contents are all there is"
    );
    for round in 0..10 {
        let other = round.to_string().repeat(100);
        scene.apply(&[("a", Some(&other))]);
        assert!(scene.history.contents.bytes <= limits.bytes);
    }
    scene.apply(&[("a", Some(&"x".repeat(1000)))]);
    scene.apply(&[("a", Some("y"))]);
    assert_eq!(scene.history.contents.bytes, 0, "too much for one version");
    assert_eq!(scene.differences(22, 22).expect("the newest is there"), [""; 0]);
}

#[test]
fn without_versions_nothing_is_kept() {
    let mut scene = Scene::new(Limits {
        versions: 0,
        ..Limits::default()
    });
    scene.apply(&[("a", Some("1"))]);
    assert!(scene.history.summaries().is_empty() && scene.history.contents.by_hash.is_empty());
}
