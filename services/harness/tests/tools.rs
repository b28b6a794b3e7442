//! The outside programs are found or installed, and run with an empty environment.

use std::process::Command;

use millrace_harness::{
    checkout,
    tools::{Tools, nats_server},
};

fn quiet(_: &str) {}

#[test]
fn the_second_ensure_says_nothing_and_returns_the_same() {
    let first = Tools::ensure_tests(&checkout(), &mut |words| eprintln!("{words}")).unwrap();
    let mut said = Vec::new();
    let second = Tools::ensure_tests(&checkout(), &mut |words| said.push(words.to_owned())).unwrap();
    assert_eq!(first, second);
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn every_tool_runs_with_a_cleared_environment() {
    let tools = Tools::ensure_tests(&checkout(), &mut quiet).unwrap();
    let websockets = ["-c", "import websockets; print(websockets.__version__)"];
    let runs: [(_, &[&str]); 5] = [
        (&tools.nats_server, &["--version"]),
        (&tools.yt_dlp, &["--version"]),
        (&tools.ffmpeg, &["-version"]),
        (&tools.ffprobe, &["-version"]),
        (&tools.python, &websockets),
    ];
    for (program, args) in runs {
        let output = Command::new(program).args(args).env_clear().current_dir("/").output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{}: {output:?}", program.display());
    }
}

#[test]
fn installing_at_once_from_two_threads_leaves_one_complete_folder() {
    let root = tempfile::tempdir().unwrap();
    let install = || nats_server(root.path(), &mut quiet).unwrap();
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(install), scope.spawn(install));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(one, other);
    assert!(one.is_file());
    let left = std::fs::read_dir(root.path().join(".tools")).unwrap();
    let names: Vec<String> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with("tmp-")), "{names:?}");
}

#[test]
fn a_root_that_does_not_exist_is_named_in_the_error() {
    let error = nats_server(std::path::Path::new("/nonexistent/checkout"), &mut quiet).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/checkout"), "{error}");
}
