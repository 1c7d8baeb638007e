//! Responsible for showing what the caller may have meant: the lines of the file that look most
//! like the text that is not there.

/// Past these a search for the nearest would cost more than it tells.
const MAX_LINES: usize = 20;
const MAX_BYTES: usize = 4 << 20;
const MAX_SHOWN: usize = 400;

/// Line number (from 1) and text of the lines most like `old`: those that share most whole lines
/// with it, indentation not counted; then those whose first line begins and ends most like its.
pub(super) fn nearest(text: &str, old: &str) -> Option<(usize, String)> {
    let wanted: Vec<&str> = old
        .trim_matches('\n')
        .split('\n')
        .take(MAX_LINES)
        .map(str::trim)
        .collect();
    let first = wanted.first().filter(|line| !line.is_empty())?;
    if text.len() > MAX_BYTES {
        return None;
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let mut best = (0, 0);
    let mut place = None;
    for (number, line) in lines.iter().enumerate() {
        let equal = wanted
            .iter()
            .zip(&lines[number..])
            .filter(|(one, other)| !one.is_empty() && **one == other.trim())
            .count();
        let score = (equal, likeness(first, line.trim()));
        if score > best {
            best = score;
            place = Some(number);
        }
    }
    let number = place?;
    let end = lines.len().min(number + wanted.len());
    let shown = lines[number..end].join("\n");
    Some((number + 1, shown.chars().take(MAX_SHOWN).collect()))
}

/// How many characters two lines share at their beginning and, behind that, at their end.
fn likeness(one: &str, other: &str) -> usize {
    let same = |pair: &(char, char)| pair.0 == pair.1;
    let start = one.chars().zip(other.chars()).take_while(same).count();
    let rest = |text: &str| text.chars().count() - start;
    let room = rest(one).min(rest(other));
    let end = one
        .chars()
        .rev()
        .zip(other.chars().rev())
        .take(room)
        .take_while(same)
        .count();
    start + end
}
