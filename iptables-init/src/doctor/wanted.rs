//! What the flags ask of the machine: which features the planned rules use, and who may write them.
//!
//! Pure. Read off the restore text, so that a new kind of rule is missed here only if it uses a word that
//! [`super::probe`] does not know.

use super::probe::{Feature, Way};

/// One run's needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Restore text by family; `None`: no rules of that family.
    pub(crate) v4: Option<String>,
    pub(crate) v6: Option<String>,
    /// Whom [`crate::apply`] may use, in its order.
    pub(crate) ways: Vec<Way>,
    /// Ports that the proxy will listen on.
    pub(crate) ports: Vec<u16>,
}

impl Wanted {
    pub(crate) fn text(&self, v6: bool) -> Option<&str> {
        if v6 {
            self.v6.as_deref()
        } else {
            self.v4.as_deref()
        }
    }

    /// Families that rules are wanted of; `true` is IPv6.
    pub(crate) fn families(&self) -> Vec<bool> {
        [false, true]
            .into_iter()
            .filter(|v6| self.text(*v6).is_some())
            .collect()
    }

    pub(crate) fn needs(&self, v6: bool, feature: &Feature) -> bool {
        self.text(v6).is_some_and(|text| uses(text, feature))
    }
}

fn uses(text: &str, feature: &Feature) -> bool {
    let mut table = "";
    text.lines().any(|line| {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            return feature.word.is_none() && table == feature.table;
        }
        // An extension works in every table, or in none.
        feature.word.is_some_and(|word| has_word(line, word))
    })
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace()
        .any(|found| found.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::super::probe::FEATURES;
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let wanted = Wanted {
            v4: Some(text.to_owned()),
            ..Wanted::default()
        };
        let needed = FEATURES.iter().filter(|feature| wanted.needs(false, feature));
        let needed: Vec<String> = needed
            .map(|feature| format!("{} {}", feature.table, feature.name))
            .collect();
        assert_eq!(needed, expected, "{text}");
    }

    #[test]
    fn needs_are_read_off_the_rules() {
        check("", &[]);
        check(
            "* nat\n-A OUTPUT -p tcp --dport 1 -m owner --uid-owner 7 -j REDIRECT --to-ports 15001\nCOMMIT\n",
            &[
                "nat table",
                "nat REDIRECT",
                "nat TCP and UDP ports",
                "nat owner of a socket",
            ],
        );
        check(
            "* mangle\n-A ISTIO_DIVERT -j MARK --set-mark 1337\n-A P -j CONNMARK --save-mark\nCOMMIT\n* raw\n\
             -A O -p udp -j CT --zone 1\nCOMMIT\n",
            &[
                "mangle table",
                "mangle packet mark",
                "mangle connection mark",
                "raw table",
                "raw conntrack zones",
            ],
        );
    }
}
