//! The fuzz bodies of the access path, on the stable compiler.

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    dead_code,
    reason = "written for a fuzzer"
)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::driver;

#[test]
fn space() {
    driver::run("space", fuzz::space::run, &[]);
}

#[test]
fn collected() {
    driver::run("collected", fuzz::collected::run, &[]);
}

#[test]
fn a_body_that_fails_fails_its_test() {
    let short = |data: &[u8]| assert!(data.len() < 16, "a long one");
    assert!(std::panic::catch_unwind(|| driver::run("short", short, &[])).is_err());
}
