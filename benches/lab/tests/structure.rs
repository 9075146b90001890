//! The shape of the source tree: who may know whom, how long a file may be, where unsafe code may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of the workspace each may use.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("trapline-io", &[]),
    ("trapline-devices", &["trapline-io"]),
    ("trapline-vcpu", &["trapline-io"]),
    ("trapline", &["trapline-io", "trapline-devices", "trapline-vcpu"]),
    ("trapline-benches", &["trapline-io", "trapline-devices", "trapline-vcpu", "trapline"]),
    ("trapline-lab", &[]),
];

/// What may lie at the top of the tree, besides files whose names start with a dot.
const TOP: [&str; 9] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "benches", "core", "devices", "io", "vcpu"];

/// What cargo and git put there.
const BUILT: [&str; 2] = ["target", ".git"];

/// The files that may hold unsafe code.
const UNSAFE: [&str; 13] = [
    "benches/benches/exit.rs",
    "benches/benches/window.rs",
    "core/src/sandbox/refused.rs",
    "devices/src/q35/ram.rs",
    "devices/src/vfio/sys.rs",
    "io/src/ring.rs",
    "vcpu/src/coalesced.rs",
    "vcpu/src/eventfd.rs",
    "vcpu/src/kick.rs",
    "vcpu/src/pit.rs",
    "vcpu/src/run.rs",
    "vcpu/src/slots.rs",
    "vcpu/src/state.rs",
];

/// The most lines a file may have.
const LINES: usize = 500;

/// File names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["mod", "util", "utils", "helper", "helpers", "manager"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All Rust files, as paths from the root, with their text.
fn sources() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && !BUILT.contains(&name.as_str()) && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let short = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.insert(short, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(found.len() > 50, "only {} Rust files were found", found.len());
    found
}

#[test]
fn crates_know_only_whom_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!(names, MAY_USE.iter().map(|(name, _)| *name).collect());
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let (_, allowed) = MAY_USE.iter().find(|(known, _)| *known == name).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            assert!(!names.contains(used) || allowed.contains(&used), "{name} may not use {used}");
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for folder in ["io", "devices", "vcpu", "core", "benches", "benches/lab"] {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{folder}/Cargo.toml");
    }
}

#[test]
fn nothing_else_lies_at_the_top() {
    let mut others: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !name.starts_with('.') && !TOP.contains(&name.as_str()) && !BUILT.contains(&name.as_str())
        })
        .collect();
    others.sort();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .map(|(name, lines)| format!("{name} has {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {LINES}: {long:?}");
}

#[test]
fn files_are_named_for_what_they_hold() {
    let bad: Vec<String> = sources()
        .into_keys()
        // Below tests/ a file is a test of its own, and what tests share has no better place.
        .filter(|name| !name.contains("/tests/"))
        .filter(|name| {
            let stem = Path::new(name).file_stem().unwrap_or_default();
            EMPTY_NAMES.iter().any(|empty| stem == *empty)
        })
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// The workspace denies unsafe code, so that a file that has some must say so by the lint's name.
#[test]
fn unsafe_code_is_only_in_the_files_of_the_list() {
    let lint = concat!("unsafe", "_code");
    let holding: BTreeMap<String, String> =
        sources().into_iter().filter(|(_, text)| text.contains(&format!("({lint}"))).collect();
    let names: Vec<&str> = holding.keys().map(String::as_str).collect();
    assert_eq!(names, UNSAFE);
    for (name, text) in &holding {
        let attribute = text.find(&format!("#![expect({lint})]")).unwrap_or_else(|| {
            panic!("{name}: the whole file must expect {lint}, and not a part of it allow it")
        });
        assert!(text[..attribute].contains("// UNSAFETY:"), "{name} does not say why it needs unsafe code");
        let blocks = text.lines().filter(|line| line.contains("unsafe {")).count();
        let reasons = text.matches("// SAFETY:").count();
        assert!(reasons >= blocks, "{name}: {blocks} unsafe blocks and {reasons} reasons");
    }
}
