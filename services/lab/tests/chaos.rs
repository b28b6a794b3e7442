//! Two minutes of chaos; `cargo dev chaos --minutes 30` is a long run.

use std::process::Command;

#[test]
fn two_minutes_of_faults_break_no_promise() {
    let status = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["chaos", "--minutes", "2", "--seed", "1", "--no-build"])
        .status()
        .expect("lab runs");
    assert!(status.success(), "a promise was broken; the table above says which");
}
