//! Responsible for the lines of one `.gitignore`, kept so that a name meets few of them: most lines
//! are a plain name or `*.suffix`, and those are looked up, not tried one after the other.

use std::collections::HashMap;

use super::pattern::{Part, matches, parse};

/// What the lines of one file say. The last line that matches decides.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    lines: Vec<Rule>,
    names: HashMap<Box<[u8]>, Vec<usize>>,
    suffixes: HashMap<Box<[u8]>, Vec<usize>>,
    /// Lengths and first bytes of what can be looked up: most names need no look.
    shapes: Shapes,
    /// Those that must be tried.
    others: Vec<usize>,
    paths: bool,
}

/// For names (0) and suffixes (1): the lengths, and the bytes that tell most, as bits.
#[derive(Debug, Default)]
struct Shapes([(u64, u64); 2]);

impl Shapes {
    fn bits(text: &[u8], which: usize) -> (u64, u64) {
        // A suffix begins with its dot.
        let first = text.get(which).copied().unwrap_or_default();
        (1 << text.len().min(63), 1 << (first & 63))
    }

    fn add(&mut self, text: &[u8], which: usize) {
        let (length, first) = Self::bits(text, which);
        self.0[which].0 |= length;
        self.0[which].1 |= first;
    }

    fn has(&self, text: &[u8], which: usize) -> bool {
        let (length, first) = Self::bits(text, which);
        self.0[which].0 & length != 0 && self.0[which].1 & first != 0
    }
}

#[derive(Debug)]
struct Rule {
    negated: bool,
    directories_only: bool,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// Found by looking it up.
    Indexed,
    /// The end of the name.
    Suffix(Box<[u8]>),
    /// The name, by a pattern without slashes.
    Name(Vec<Part>),
    /// The path from the directory of the file.
    Path(Vec<Part>),
}

impl Rules {
    pub(crate) fn parse(content: &[u8]) -> Self {
        let mut found = Self::default();
        let content = content
            .strip_prefix(b"\xef\xbb\xbf".as_slice())
            .unwrap_or(content);
        for line in content.split(|&byte| byte == b'\n') {
            found.add(line.strip_suffix(b"\r").unwrap_or(line));
        }
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether any rule needs more than the name.
    pub(crate) fn look_at_paths(&self) -> bool {
        self.paths
    }

    /// Ignored, taken back from being ignored, or not mentioned.
    pub(crate) fn judge(&self, path: &[u8], name: &[u8], is_directory: bool) -> Option<bool> {
        let applies = |index: &&usize| is_directory || !self.lines[**index].directories_only;
        let last = |found: Option<&Vec<usize>>| found?.iter().rfind(applies).copied();
        let mut best = None;
        if self.shapes.has(name, 0) {
            best = last(self.names.get(name));
        }
        if !self.suffixes.is_empty()
            && let Some(dot) = memchr::memrchr(b'.', name)
            && self.shapes.has(&name[dot..], 1)
        {
            best = best.max(last(self.suffixes.get(&name[dot..])));
        }
        for &index in self.others.iter().rev() {
            if best.is_some_and(|best| best > index) {
                break;
            }
            if applies(&&index) && self.lines[index].test.accepts(path, name) {
                best = Some(index);
                break;
            }
        }
        best.map(|index| !self.lines[index].negated)
    }

    fn add(&mut self, line: &[u8]) {
        if line.first() == Some(&b'#') {
            return;
        }
        let line = &line[..memchr::memchr(0, line).unwrap_or(line.len())];
        let mut pattern = without_spaces_at_the_end(line);
        let negated = pattern.first() == Some(&b'!');
        pattern = &pattern[usize::from(negated)..];
        let directories_only = pattern.last() == Some(&b'/');
        pattern = &pattern[..pattern.len() - usize::from(directories_only)];
        if pattern.is_empty() {
            return;
        }
        let index = self.lines.len();
        let Some(test) = self.indexed(pattern, index) else {
            return;
        };
        if !matches!(test, Test::Indexed) {
            self.others.push(index);
        }
        self.paths |= matches!(test, Test::Path(_));
        self.lines.push(Rule {
            negated,
            directories_only,
            test,
        });
    }

    /// How the pattern is tested; `None` if nothing can match it.
    fn indexed(&mut self, pattern: &[u8], index: usize) -> Option<Test> {
        if pattern.contains(&b'/') {
            let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
            return parse(pattern).map(Test::Path);
        }
        if plain(pattern) {
            self.shapes.add(pattern, 0);
            self.names.entry(pattern.into()).or_default().push(index);
            return Some(Test::Indexed);
        }
        if pattern[0] == b'*' && plain(&pattern[1..]) {
            let suffix = &pattern[1..];
            if memchr::memrchr(b'.', suffix) == Some(0) {
                self.shapes.add(suffix, 1);
                self.suffixes.entry(suffix.into()).or_default().push(index);
                return Some(Test::Indexed);
            }
            return Some(Test::Suffix(suffix.into()));
        }
        parse(pattern).map(Test::Name)
    }
}

impl Test {
    fn accepts(&self, path: &[u8], name: &[u8]) -> bool {
        match self {
            Test::Indexed => false,
            Test::Suffix(suffix) => name.ends_with(suffix),
            Test::Name(parts) => matches(parts, name),
            Test::Path(parts) => matches(parts, path),
        }
    }
}

fn plain(pattern: &[u8]) -> bool {
    !pattern
        .iter()
        .any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// Spaces at the end count only behind a backslash.
fn without_spaces_at_the_end(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => at += 1,
            b'\\' => {
                at = (at + 2).min(line.len());
                end = at;
            }
            _ => {
                at += 1;
                end = at;
            }
        }
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &str, path: &str) -> Option<bool> {
        let is_directory = path.ends_with('/');
        let path = path.trim_end_matches('/');
        let name = path.rsplit('/').next().expect("a name");
        Rules::parse(lines.as_bytes()).judge(path.as_bytes(), name.as_bytes(), is_directory)
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        for (lines, path, expected) in [
            ("*.log\n!keep.log", "a/keep.log", Some(false)),
            ("!keep.log\n*.log", "a/keep.log", Some(true)),
            ("target/", "target/", Some(true)),
            ("target/", "target", None),
            ("target\n!target/", "target/", Some(false)),
            ("/a", "a", Some(true)),
            ("/a", "b/a", None),
            ("b/a", "b/a", Some(true)),
            ("b/a", "c/b/a", None),
            ("# note\n\n\\#x", "#x", Some(true)),
            ("a  ", "a", Some(true)),
            ("a\\ ", "a ", Some(true)),
            ("a\r\n", "a", Some(true)),
            ("\u{feff}a", "a", Some(true)),
            ("*~", "x~", Some(true)),
            ("*.tar.gz", "x.tar.gz", Some(true)),
        ] {
            assert_eq!(judge(lines, path), expected, "{lines:?} {path}");
        }
    }
}
