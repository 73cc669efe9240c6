//! What a proxy serves at `/stats/prometheus`, taken apart.

use std::collections::BTreeMap;

/// One line: a metric with its labels, in their order, and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name of the metric.
    pub metric: String,
    /// Names and values, in the order of the line.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Series {
    /// The value of a label; empty if it has none.
    pub fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map_or("", |(_, value)| value)
    }
}

/// The series of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Vec<Series>);

impl Scrape {
    /// Reads the text format.
    ///
    /// # Panics
    /// At a line that is none of the format.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            lines
                .map(|line| parse(line).unwrap_or_else(|| panic!("no series: {line}")))
                .collect(),
        )
    }

    /// The series of one metric.
    pub fn of<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(move |series| series.metric == metric)
    }

    /// The sum of a metric over all its series, as a whole number.
    pub fn sum(&self, metric: &str) -> u64 {
        self.of(metric).map(|series| series.value as u64).sum()
    }

    /// The sums of a metric by the values of some labels, joined by blanks.
    pub fn sums_by(&self, metric: &str, labels: &[&str]) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for series in self.of(metric) {
            let values: Vec<_> = labels.iter().map(|label| series.label(label)).collect();
            *sums.entry(values.join(" ")).or_default() += series.value as u64;
        }
        sums
    }
}

fn parse(line: &str) -> Option<Series> {
    let (series, value) = line.rsplit_once(' ')?;
    let (metric, mut rest) = series.strip_suffix('}')?.split_once('{')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(Series {
        metric: metric.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_order_and_may_hold_anything() {
        let scrape = Scrape::parse("# TYPE a counter\na{b=\"x,\\\"y\\\" \\\\\",a=\"\"} 3\na{} 4\n");
        let first = scrape.of("a").next().expect("a series");
        let expected = [("b", "x,\"y\" \\"), ("a", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(first.labels, expected);
        assert_eq!(scrape.sum("a"), 7);
    }
}
