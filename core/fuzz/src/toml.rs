//! A configuration file: an error is one line for a person, a configuration is within its bounds.

use trapline::config::{MEMORY_LARGEST, MEMORY_LEAST, Options, Origin, RunConfig};

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(text) = super::input::<&str>(data) else { return };
    let options = match Options::from_toml(text) {
        Ok(options) => options,
        Err(problem) => return assert!(!problem.contains('\n'), "{problem:?}"),
    };
    match RunConfig::new(Options::default(), Some((Origin::File("f.toml".into()), options))) {
        Ok(config) => {
            assert!((MEMORY_LEAST..=MEMORY_LARGEST).contains(&config.memory));
            assert_eq!(config.memory % (1 << 20), 0);
            assert!(config.cpus > 0);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}
