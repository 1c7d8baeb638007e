//! Does one hot path of the file operations so many times, for `nox -s instructions`, which counts
//! what it takes: `hot_paths walk|search|edit COUNT FOLDER`.
#![allow(clippy::print_stdout, reason = "a program's answer")]
#![cfg(unix)]

use std::ffi::OsStr;
use std::hint::black_box;
use std::path::Path;
use vespera_file_ops::edit::{Edit, edit_text};
use vespera_file_ops::glob::glob_files;
use vespera_file_ops::search::{Query, search_text};
use vespera_file_ops::text::Encoding;

/// Few enough directories for one thread, so that every run takes the same way.
const DIRECTORIES: usize = 12;
const FILES: usize = 100;

fn tree(folder: &Path) -> std::io::Result<()> {
    std::fs::write(
        folder.join(".gitignore"),
        "*.log\n/build/\n*.py[co]\n!keep.log\ndist\n",
    )?;
    for directory in 0..DIRECTORIES {
        let directory = folder.join(format!("directory-{directory}"));
        std::fs::create_dir_all(&directory)?;
        for file in 0..FILES {
            let suffix = ["py", "rs", "log", "pyc"][file % 4];
            std::fs::write(directory.join(format!("file-{file}.{suffix}")), "")?;
        }
    }
    Ok(())
}

fn text() -> String {
    let mut text = String::new();
    for number in 0..1000 {
        text.push_str("let value = index.next(); // words that stand in every line\n");
        if number % 100 == 50 {
            text.push_str("here is the needle in the hay\n");
        }
    }
    text
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, count, folder] = words.as_slice() else {
        return Err("usage: hot_paths walk|search|edit COUNT FOLDER".into());
    };
    let count: usize = count.parse()?;
    let folder = Path::new(folder);
    let mut seen = 0;
    match path.as_str() {
        "walk" => {
            tree(folder)?;
            for _ in 0..count {
                seen += glob_files(None, black_box(folder), OsStr::new("**/*.py"), true)?.len();
            }
        }
        "search" => {
            let text = text();
            let query = Query {
                pattern: "needle".into(),
                candidate: "needle".into(),
                exact: "needle".into(),
                multiline: false,
                before: 0,
                after: 0,
                max_per_file: None,
                count: false,
            };
            for _ in 0..count {
                black_box(search_text(black_box(text.as_bytes()), &query, None)?);
                seen += 1;
            }
        }
        "edit" => {
            let text = text().replacen("value", "only-one", 1);
            let edit = Edit {
                old: "only-one".into(),
                new: "replaced".into(),
                replace_all: false,
            };
            for _ in 0..count {
                let edits = std::slice::from_ref(&edit);
                seen += edit_text(folder, black_box(&text), edits, Encoding::ALL[0])?
                    .text
                    .len();
            }
        }
        other => return Err(format!("no such path: '{other}'; walk, search or edit").into()),
    }
    println!("{seen}");
    Ok(())
}
