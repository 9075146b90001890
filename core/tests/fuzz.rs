//! The fuzz bodies of what the program reads, on the stable compiler.

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    dead_code,
    reason = "written for a fuzzer"
)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

#[allow(clippy::cast_possible_truncation, reason = "random numbers are cut to size")]
#[path = "../../io/fuzz/src/driver.rs"]
mod driver;

#[test]
fn image() {
    driver::run("image", fuzz::image::run, &[]);
}

#[test]
fn kernel() {
    driver::run("kernel", fuzz::kernel::run, &[]);
}

#[test]
fn keys() {
    driver::run("keys", fuzz::keys::run, &[b"<wait-text:GRUB \\>><down><ctrl-alt-delete>a<wait:0.5>"]);
}

#[test]
fn options() {
    driver::run("options", fuzz::options::run, &[]);
}

#[test]
fn report() {
    driver::run("report", fuzz::report::run, &[br#"{"format":1,"runs":[]}"#]);
}

#[test]
fn toml() {
    driver::run(
        "toml",
        fuzz::toml::run,
        &[b"memory = '2G'\ndevice = ['vfio-user:a,vga=on', 'none']\ntimeout = 2.5\n"],
    );
}
