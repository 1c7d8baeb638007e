//! Responsible for matching a row of characters against wildcards, whatever a character is: globs
//! count characters, a `.gitignore` counts bytes.

/// One piece of a pattern.
pub(crate) trait Token<C> {
    /// `*`: any run of characters, also none.
    fn is_run(&self) -> bool;

    /// Whether it stands for this one character.
    fn accepts(&self, character: C) -> bool;
}

/// Whether the whole name matches. Only the last `*` is ever tried again, so the time is at most
/// length of name times length of pattern.
pub(crate) fn matches<C: Copy, T: Token<C>>(tokens: &[T], name: &[C]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut last_run: Option<(usize, usize)> = None;
    loop {
        match tokens.get(token) {
            Some(run) if run.is_run() => {
                last_run = Some((token, at));
                token += 1;
                continue;
            }
            Some(single) if at < name.len() && single.accepts(name[at]) => {
                token += 1;
                at += 1;
                continue;
            }
            None if at == name.len() => return true,
            _ => {}
        }
        match last_run {
            Some((run, start)) if start < name.len() => {
                last_run = Some((run, start + 1));
                token = run + 1;
                at = start + 1;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Token<u8> for u8 {
        fn is_run(&self) -> bool {
            *self == b'*'
        }

        fn accepts(&self, character: u8) -> bool {
            *self == b'?' || *self == character
        }
    }

    #[test]
    fn stars_match_any_run_and_question_marks_one_character() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*.rs", "lib.rs", true),
            ("*.rs", "lib.rs.bak", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("?", "e", true),
            ("??", "e", false),
            ("", "", true),
            ("", "a", false),
        ] {
            let found = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_stars_on_a_long_name_end_soon() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(5_000).as_bytes()));
    }
}
