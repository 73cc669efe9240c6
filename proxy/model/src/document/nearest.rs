//! The valid name that was probably meant.

/// The candidate with the fewest edits, if they are few for its length.
pub(super) fn nearest(wrong: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let wrong_letters: Vec<char> = wrong.chars().take(MAX_LETTERS).collect();
    let allowed = (wrong_letters.len() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(wrong.len()) <= allowed)
        .map(|candidate| (edits(&wrong_letters, &candidate), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Field and type names are shorter; what is longer is not a misspelling.
const MAX_LETTERS: usize = 128;

/// Levenshtein distance without regard to case, row by row.
fn edits(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().take(MAX_LETTERS).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut last = line + 1;
        next.push(last);
        for ((to, diagonal), above) in right.iter().zip(&row).zip(row.iter().skip(1)) {
            let substituted = diagonal + usize::from(!from.eq_ignore_ascii_case(to));
            last = substituted.min(above + 1).min(last + 1);
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_a_few_letters_away() {
        let names = || ["connect_timeout", "name", "type", "eds_cluster_config"].map(String::from);
        for (wrong, right) in [
            ("connect_timout", Some("connect_timeout")),
            ("connct_timeot", Some("connect_timeout")),
            ("Name", Some("name")),
            ("tpye", None),
            ("something_else", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names()).as_deref(), right, "{wrong}");
        }
    }
}
