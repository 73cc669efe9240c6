//! What was found, with its remedy, as text and as JSON.
//!
//! Pure. Exit codes of `doctor`: the most basic trouble decides, since it makes the rest hard to judge.

use std::fmt::Write as _;

use crate::Exit;
use crate::log::escape;

/// How bad it is. Sorted: worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Worth knowing, in nobody's way.
    Note,
    /// May get in the way.
    Warning,
    /// Rules cannot be written, or would not do what they say.
    Error,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Fine => "fine",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Where the trouble lies; with an error, the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Modules, tables, programs.
    Kernel,
    /// Capabilities, seccomp, user namespaces.
    Privilege,
    /// Rules that are there already.
    Rules,
    /// IPv6, sysctls, conntrack, ports.
    Settings,
}

impl Area {
    /// By which of several errors decides.
    const ALL: [Area; 4] = [Area::Privilege, Area::Kernel, Area::Settings, Area::Rules];

    /// How the program ends after an error of this area.
    pub fn exit(self) -> Exit {
        match self {
            Area::Kernel => Exit::MissingSupport,
            Area::Privilege => Exit::NoPrivilege,
            Area::Rules => Exit::Conflict,
            Area::Settings => Exit::BadSetting,
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable, for machines: `kernel.nat`, `capability.net_admin`.
    pub id: String,
    pub severity: Severity,
    pub area: Area,
    /// One line.
    pub summary: String,
    /// Where that was seen: files, answers of the kernel, complaints of programs.
    pub seen: Vec<String>,
    /// What to do, exactly: commands, lines of a manifest. Empty if nothing is to be done.
    pub fix: Vec<String>,
}

impl Finding {
    pub(crate) fn new(
        area: Area,
        id: impl Into<String>,
        severity: Severity,
        summary: impl Into<String>,
    ) -> Self {
        Finding {
            id: id.into(),
            severity,
            area,
            summary: summary.into(),
            seen: Vec::new(),
            fix: Vec::new(),
        }
    }

    pub(crate) fn seen(mut self, what: impl Into<String>) -> Self {
        self.seen.push(what.into());
        self
    }

    pub(crate) fn fix(mut self, what: impl Into<String>) -> Self {
        self.fix.push(what.into());
        self
    }
}

/// All findings, in the order in which they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// As the first [`Area`] that has an error says.
    pub fn exit(&self) -> Exit {
        let errors = |area: &Area| {
            let mut findings = self.findings.iter();
            findings.any(|finding| finding.severity == Severity::Error && finding.area == *area)
        };
        Area::ALL.into_iter().find(errors).map_or(Exit::Done, Area::exit)
    }

    fn count(&self, severity: Severity) -> usize {
        let of = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(of).count()
    }

    /// `2 errors, 1 warning, 3 notes, 9 fine`
    pub fn counts(&self) -> String {
        let plural =
            |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        format!(
            "{}, {}, {}, {} fine",
            plural(self.count(Severity::Error), "error"),
            plural(self.count(Severity::Warning), "warning"),
            plural(self.count(Severity::Note), "note"),
            self.count(Severity::Fine)
        )
    }

    /// For people: the worst first; what is fine takes a line each.
    pub fn text(&self) -> String {
        let mut text = format!("doctor: {} (exit {})\n", self.counts(), self.exit() as u8);
        for severity in [Severity::Error, Severity::Warning, Severity::Note, Severity::Fine] {
            for finding in self
                .findings
                .iter()
                .filter(|finding| finding.severity == severity)
            {
                let _ = writeln!(text, "{:<8}{}: {}", severity.name(), finding.id, finding.summary);
                for seen in &finding.seen {
                    let _ = writeln!(text, "        seen: {seen}");
                }
                for fix in &finding.fix {
                    let _ = writeln!(text, "        fix:  {fix}");
                }
            }
        }
        text
    }

    /// One JSON object on one line.
    pub fn json(&self) -> String {
        let findings: Vec<String> = self.findings.iter().map(json).collect();
        format!(
            "{{\"exit\":{},\"findings\":[{}]}}\n",
            self.exit() as u8,
            findings.join(",")
        )
    }
}

fn json(finding: &Finding) -> String {
    let list = |lines: &[String]| {
        let lines: Vec<String> = lines.iter().map(|line| format!("\"{}\"", escape(line))).collect();
        lines.join(",")
    };
    format!(
        "{{\"id\":\"{}\",\"severity\":\"{}\",\"summary\":\"{}\",\"seen\":[{}],\"fix\":[{}]}}",
        escape(&finding.id),
        finding.severity.name(),
        escape(&finding.summary),
        list(&finding.seen),
        list(&finding.fix)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(of: &[(Area, Severity)]) -> Report {
        let finding = |(area, severity): &(Area, Severity)| Finding::new(*area, "a.b", *severity, "so it is");
        Report {
            findings: of.iter().map(finding).collect(),
        }
    }

    #[test]
    fn the_most_basic_error_decides_the_exit_code_and_warnings_do_not() {
        let check =
            |of: &[(Area, Severity)], expected| assert_eq!(report(of).exit() as u8, expected, "{of:?}");
        check(&[], 0);
        check(&[(Area::Kernel, Severity::Warning)], 0);
        check(
            &[(Area::Rules, Severity::Error), (Area::Settings, Severity::Error)],
            6,
        );
        check(
            &[(Area::Rules, Severity::Error), (Area::Kernel, Severity::Error)],
            3,
        );
        check(
            &[
                (Area::Kernel, Severity::Error),
                (Area::Privilege, Severity::Error),
            ],
            4,
        );
        check(
            &[(Area::Privilege, Severity::Note), (Area::Rules, Severity::Error)],
            5,
        );
    }

    #[test]
    fn text_has_the_worst_first_and_every_remedy() {
        let mut report = report(&[(Area::Rules, Severity::Fine)]);
        report.findings.push(
            Finding::new(Area::Kernel, "kernel.nat", Severity::Error, "no nat")
                .seen("it said \"no\"")
                .fix("modprobe iptable_nat"),
        );
        assert_eq!(
            report.text(),
            "doctor: 1 error, 0 warnings, 0 notes, 1 fine (exit 3)\n\
             error   kernel.nat: no nat\n        seen: it said \"no\"\n        fix:  modprobe iptable_nat\n\
             fine    a.b: so it is\n"
        );
        assert_eq!(
            report.json(),
            "{\"exit\":3,\"findings\":[{\"id\":\"a.b\",\"severity\":\"fine\",\"summary\":\"so it is\",\"seen\":[],\
             \"fix\":[]},{\"id\":\"kernel.nat\",\"severity\":\"error\",\"summary\":\"no nat\",\
             \"seen\":[\"it said \\\"no\\\"\"],\"fix\":[\"modprobe iptable_nat\"]}]}\n"
        );
    }
}
