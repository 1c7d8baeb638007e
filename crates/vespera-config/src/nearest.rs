//! Responsible for "did you mean": the known name nearest to an unknown one.

/// Longer names are not compared: nobody mistypes them, and the cost is quadratic.
const LONGEST: usize = 64;

/// What to write instead of `name`: the nearest of `known`, or all of them.
/// `kind` is the plural noun (`fields`, `values`).
pub(crate) fn remedy(kind: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known {kind}: {}", known.join(", ")),
    }
}

/// The known name within a third of its length in edits (at least one), the first in the
/// alphabet if several are as near. Case and `-` for `_` do not count.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let written: Vec<char> = fold(name);
    if written.len() > LONGEST {
        return None;
    }
    known
        .iter()
        .map(|candidate| (distance(&written, &fold(candidate)), *candidate))
        .filter(|(edits, candidate)| *edits <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

fn fold(name: &str) -> Vec<char> {
    name.chars()
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_previous: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = replaced.min(previous[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before_previous[j - 2] + 1);
            }
            row.push(edits);
        }
        before_previous = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["turn", "total", "startup", "after_result"];
        for (written, meant) in [
            ("turm", "turn"),
            ("trun", "turn"),
            ("Total", "total"),
            ("after-result", "after_result"),
        ] {
            assert_eq!(nearest(written, &known), Some(meant));
        }
    }

    #[test]
    fn what_resembles_nothing_lists_all() {
        assert_eq!(
            remedy("fields", "zzz", &["usd", "tokens"]),
            "known fields: usd, tokens"
        );
        assert_eq!(nearest(&"x".repeat(100_000), &["usd"]), None);
        assert_eq!(nearest("", &["usd"]), None);
    }
}
