//! The options of `trapline adapter`.

use super::*;

#[test]
fn an_adapter_has_a_socket() {
    let options = |socket: &str, rom: Option<&str>| AdapterOptions {
        socket: socket.into(),
        rom: rom.map(PathBuf::from),
        seccomp: None,
    };
    let config = AdapterConfig::new(options("a", Some("r"))).unwrap();
    assert_eq!(config, AdapterConfig { socket: "a".into(), rom: Some("r".into()), seccomp: Seccomp::On });
    assert_eq!(
        AdapterConfig::new(options("", None)).unwrap_err().to_string(),
        "--socket: the file is not named"
    );
    assert_eq!(
        AdapterConfig::new(options("a", Some(""))).unwrap_err().to_string(),
        "--rom: the file is not named"
    );
}

#[test]
fn an_adapter_is_confined_as_it_is_told() {
    let options =
        |seccomp: &str| AdapterOptions { socket: "a".into(), rom: None, seccomp: Some(seccomp.to_owned()) };
    assert_eq!(AdapterConfig::new(options("log")).unwrap().seccomp, Seccomp::Log);
    let problem = AdapterConfig::new(options("yes")).unwrap_err().to_string();
    assert!(problem.contains("--seccomp yes: not known; give on, log or off"), "{problem}");
}
