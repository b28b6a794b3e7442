//! No circle between the files of a crate: a reader can read each file after the files that it uses.
//!
//! File A uses file B when A names something that B defines, also through imports and re-exports: what `foo.rs` passes
//! on by `pub use` is its child's. A declaration `mod child;` alone is no use, and `#[cfg(test)]` is not looked at.
//!
//! One thing is allowed: `foo.rs` and the files right in `foo/` are a room, in which the parent may use its children
//! and they what the parent defines. A circle through the parent that stays in the room counts for nothing; one of
//! children alone does, and so does every circle that leaves the room. A crate's root is no room: what all modules use
//! belongs into a file of its own, not into `lib.rs`, which uses them.

mod modules;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use modules::Modules;
use serde_json::Value;

/// Which file uses which.
type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// The shortest way, by files from `from` to `to`.
fn way(graph: &Graph, from: &Path, to: &Path) -> Option<Vec<PathBuf>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().expect("a way has a begin");
            if last == to {
                return Some(way);
            }
            for next in graph.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    longer.push([way.as_slice(), std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// The circles of the crate whose root is `root`, short ones first, each as its files with what the next one is used
/// for.
fn circles(root: &Path) -> Vec<String> {
    let modules = Modules::of(root);
    let edges = modules.edges();
    let graph = |counts: &dyn Fn(&Path, &Path) -> bool| {
        let mut graph = Graph::new();
        for (from, to) in edges.keys().filter(|(from, to)| counts(from, to)) {
            graph.entry(from.clone()).or_default().insert(to.clone());
        }
        graph
    };
    let are_parent_and_child = |a: &Path, b: &Path| modules.parent(a) == Some(b) || modules.parent(b) == Some(a);
    let are_in_one_room = |a: &Path, b: &Path| {
        are_parent_and_child(a, b) || (modules.parent(a).is_some() && modules.parent(a) == modules.parent(b))
    };
    let all = graph(&|_, _| true);
    let without_parents = graph(&|from, to| !are_parent_and_child(from, to));
    let mut found = BTreeMap::new();
    for (from, to) in edges.keys() {
        // An edge between rooms closes a circle that leaves a room. One within a room does where no parent is needed.
        let graph = if are_in_one_room(from, to) { &without_parents } else { &all };
        if graph.get(from).is_some_and(|used| used.contains(to))
            && let Some(circle) = way(graph, to, from)
        {
            found.entry(circle.iter().cloned().collect::<BTreeSet<_>>()).or_insert(circle);
        }
    }
    let folder = root.parent().expect("a file is in a folder");
    let short = |file: &Path| file.strip_prefix(folder).unwrap_or(file).display().to_string();
    let show = |circle: &Vec<PathBuf>| {
        let steps = circle
            .iter()
            .zip(circle.iter().cycle().skip(1))
            .map(|(from, to)| format!("{} uses {} of {}", short(from), edges[&(from.clone(), to.clone())], short(to)));
        format!("{}: {}", folder.display(), steps.collect::<Vec<_>>().join(", "))
    };
    let mut found: Vec<_> = found.values().collect();
    found.sort_by_key(|circle| circle.len());
    found.into_iter().map(show).collect()
}

/// The root file of each library, program and integration test of the workspace.
fn roots() -> BTreeSet<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(millrace_harness::checkout())
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let targets = packages.flat_map(|package| package["targets"].as_array().expect("targets"));
    targets.map(|target| PathBuf::from(target["src_path"].as_str().expect("a path"))).collect()
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    let roots = roots();
    assert!(roots.len() > 20, "{roots:?}");
    let found: Vec<_> = roots.iter().flat_map(|root| circles(root)).collect();
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n"));
}

/// The circles of a crate of these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = folder.path().join("lib.rs");
    circles(&root)
}

#[test]
fn a_circle_is_found_whichever_way_it_is_written() {
    let root = ("lib.rs", "mod a; mod b;");
    let b = ("b.rs", "pub fn b() { crate::a::a() }");
    for a in [
        "use crate::b; pub fn a() { b::b() }",
        "use super::b::{self}; pub fn a() { b::b() }",
        "use super::b::b as c; pub fn a() { c() }",
        "use crate::b::*; pub fn a() { b() }",
        "pub fn a() { let _ = vec![crate::b::b()]; }",
        "pub fn a() { super::b::b() }",
        "mod inner { use super::super::b::b; fn c() { b() } } pub fn a() {}",
    ] {
        let found = circles_of(&[root, b, ("a.rs", a)]);
        assert_eq!(found.len(), 1, "{a}: {found:?}");
        assert!(found[0].contains("b.rs uses crate::a::a of a.rs"), "{a}: {found:?}");
    }
    for a in [
        "pub fn a() { let b = 1; drop(b) }",
        "pub use crate::b::b; pub fn a() {}",
        "pub fn a() {} #[cfg(test)] mod tests { fn t() { crate::b::b() } }",
        "use other::b; pub fn a() { b::b() }",
    ] {
        assert_eq!(circles_of(&[root, b, ("a.rs", a)]), [""; 0], "{a}");
    }
}

#[test]
fn a_room_is_no_circle_but_what_leaves_it_is_and_so_are_its_children_alone() {
    let room = [
        ("lib.rs", "mod room; mod other;"),
        ("room.rs", "pub mod x; mod y; pub use self::y::Y; pub struct R; fn r() { x::x(); let _ = Y; }"),
        ("room/x.rs", "use super::R; pub fn x() { let _: (R, super::Y); }"),
        ("room/y.rs", "pub struct Y; pub fn y() -> super::R { super::R }"),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        let mut files: BTreeMap<_, _> = room.into_iter().collect();
        files.extend(more.iter().copied());
        circles_of(&files.into_iter().collect::<Vec<_>>())
    };
    let other = ("other.rs", "pub struct O;");
    assert_eq!(with(&[other]), [""; 0]);
    let children = with(&[other, ("room/y.rs", "pub struct Y; fn y() { super::x::x() }")]);
    assert_eq!(children.len(), 1, "{children:?}");
    assert!(
        children[0].contains("room/x.rs uses super::Y of room/y.rs"),
        "what is passed on is the child's: {children:?}"
    );
    let leaves = [
        ("other.rs", "pub fn o() { crate::room::x::x() }"),
        ("room.rs", "pub mod x; pub fn r() { crate::other::o() }"),
    ];
    let leaves = with(&[&leaves[..], &[("room/x.rs", "pub fn x() { super::r() }")]].concat());
    assert_eq!(leaves.len(), 1, "{leaves:?}");
    let root = [("lib.rs", "mod room; mod other; pub struct App; fn run() { room::r() }"), other];
    let root = with(&[&root[..], &[("room.rs", "pub fn r() { let _: crate::App; }")]].concat());
    assert_eq!(root.len(), 1, "a crate's root is no room: {root:?}");
}
