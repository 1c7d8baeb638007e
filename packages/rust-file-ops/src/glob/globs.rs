//! Responsible for several patterns matched together while a tree is walked, one name at a time:
//! how far each has come is a `Places`, and a directory where it is empty need not be entered.

use std::cell::RefCell;
use std::ffi::OsStr;

use vespera_error::Result;

use super::component::{Component, Plain, decode};
use super::pattern::parse;

/// Patterns, braces written out.
#[derive(Debug, Default)]
pub(crate) struct Globs {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    components: Vec<Component>,
    /// The last component in bytes, if it can be told so.
    last: Option<Plain>,
    directories_only: bool,
}

/// How far one of the patterns has been matched when a directory is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    pattern: usize,
    component: usize,
}

/// How far all of them have come. Empty: nothing beneath can match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places(Vec<Place>);

impl Places {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Globs {
    /// One pattern, matched against the whole path.
    pub(crate) fn one(pattern: &OsStr) -> Result<Self> {
        let mut globs = Self::default();
        globs.add(pattern, false, false)?;
        Ok(globs)
    }

    /// Several patterns. One without a slash is matched at any depth, and where directories count,
    /// a slash at the end means them alone.
    pub(crate) fn floating(patterns: &[impl AsRef<OsStr>], directories: bool) -> Result<Self> {
        let mut globs = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let bytes = pattern.as_encoded_bytes();
            let named = bytes.strip_suffix(b"/").filter(|_| directories);
            let bytes = named.unwrap_or(bytes);
            let anywhere = !bytes.contains(&b'/') && !bytes.is_empty();
            let text = std::os::unix::ffi::OsStrExt::from_bytes(bytes);
            globs
                .add(text, anywhere, named.is_some())
                // The message must show what was written.
                .map_err(|error| match error.context().get("reason") {
                    Some(reason) => {
                        let reason = reason.as_str().unwrap_or_default().to_owned();
                        crate::error::bad_pattern(pattern, reason)
                    }
                    None => error,
                })?;
        }
        Ok(globs)
    }

    fn add(&mut self, pattern: &OsStr, anywhere: bool, directories_only: bool) -> Result<()> {
        for components in parse(pattern, anywhere)? {
            let last = match components.last() {
                Some(Component::Name(tokens)) => tokens.plain(),
                _ => None,
            };
            self.patterns.push(Pattern {
                components,
                last,
                directories_only,
            });
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Where all stand at the start of the walk.
    pub(crate) fn start(&self) -> Places {
        let places = (0..self.patterns.len()).map(|pattern| Place {
            pattern,
            component: 0,
        });
        self.with_zero_depth(places.collect())
    }

    /// Whether `name` in a directory of these places matches.
    pub(crate) fn accepts(&self, places: &Places, name: &[u8], is_directory: bool) -> bool {
        let mut decoded = false;
        places.0.iter().any(|&place| {
            let pattern = &self.patterns[place.pattern];
            if place.component + 1 != pattern.components.len()
                || pattern.directories_only && !is_directory
            {
                return false;
            }
            match (&pattern.last, &pattern.components[place.component]) {
                (Some(plain), _) => plain.matches(name),
                (None, Component::Name(tokens)) => {
                    let again = std::mem::replace(&mut decoded, true);
                    with_characters(name, again, |characters| tokens.matches(characters))
                }
                (None, Component::AnyDepth) => false,
            }
        })
    }

    /// The places in the directory `name` beneath one of these places.
    pub(crate) fn beneath(&self, places: &Places, name: &[u8]) -> Places {
        if places.is_empty() {
            return Places::default();
        }
        let mut deeper = Vec::with_capacity(places.0.len());
        with_characters(name, false, |characters| {
            for &place in &places.0 {
                let components = &self.patterns[place.pattern].components;
                match &components[place.component] {
                    Component::AnyDepth => deeper.push(place),
                    Component::Name(tokens) => {
                        let component = place.component + 1;
                        if component < components.len() && tokens.matches(characters) {
                            deeper.push(Place { component, ..place });
                        }
                    }
                }
            }
        });
        self.with_zero_depth(deeper)
    }

    /// `**` also stands for no directory at all: what follows it may match right here.
    fn with_zero_depth(&self, places: Vec<Place>) -> Places {
        let mut all: Vec<Place> = Vec::with_capacity(places.len() * 2);
        for mut place in places {
            while !all.contains(&place) {
                all.push(place);
                // A parsed pattern never ends in `**`, so "one further" always exists.
                let component = &self.patterns[place.pattern].components[place.component];
                if matches!(component, Component::AnyDepth) {
                    place.component += 1;
                }
            }
        }
        Places(all)
    }
}

/// Work with the characters of a name, which `again` are those of the call before.
fn with_characters<T>(name: &[u8], again: bool, work: impl FnOnce(&[u32]) -> T) -> T {
    thread_local! {
        /// Kept to save an allocation per name.
        static CHARACTERS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }
    CHARACTERS.with_borrow_mut(|characters| {
        if !again {
            decode(name, characters);
        }
        work(characters)
    })
}
