//! Builds the guardian and hands its bytes to the extension, which runs it from memory: a wheel
//! has no place for a second program beside a cdylib.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=guardian/src");
    println!("cargo::rerun-if-changed=guardian/Cargo.toml");
    println!("cargo::rerun-if-changed=build.rs");
    println!(
        "cargo::rustc-env=VESPERA_PROFILE={}",
        env::var("PROFILE").unwrap_or_default()
    );
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // A static program starts faster and its leashes are smaller. Where the C library comes
    // without its static half, a dynamic one keeps every promise but size.
    let program = build(&out, true).or_else(|| {
        println!("cargo::warning=no static C library here: the guardian is linked dynamically");
        build(&out, false)
    });
    let program = program.expect("the guardian does not build; the lines above say why");
    let target = out.join("vespera-guardian");
    fs::copy(&program, &target).expect("the guardian is copied into OUT_DIR");
    println!("cargo::rustc-env=VESPERA_GUARDIAN={}", target.display());
}

fn build(out: &Path, fixed: bool) -> Option<PathBuf> {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let directory = out.join(if fixed {
        "guardian-static"
    } else {
        "guardian-dynamic"
    });
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .current_dir(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
        .args([
            "build",
            "--release",
            "--bin",
            "vespera-guardian",
            "--package",
            "vespera-guardian",
        ])
        .args(["--locked", "--target", &target, "--target-dir"])
        .arg(&directory)
        // Of this program's own: smaller, and a panic must end it at once.
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    if env::var_os("CARGO_NET_OFFLINE").is_some() {
        cargo.arg("--offline");
    }
    // The outer build's wrappers and flags (clippy, coverage, sanitizers) are not the guardian's.
    for name in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    if fixed {
        cargo.env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        );
    }
    let done = cargo.status().is_ok_and(|status| status.success());
    done.then(|| directory.join(target).join("release/vespera-guardian"))
}
