//! A configuration file: an error is one line for a person, a configuration is within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trapline::config::{MEMORY_LARGEST, MEMORY_LEAST, Options, Origin, PAGE, RunConfig};

fuzz_target!(|text: &str| {
    let options = match Options::from_toml(text) {
        Ok(options) => options,
        Err(problem) => return assert!(!problem.contains('\n'), "{problem:?}"),
    };
    match RunConfig::new(Options::default(), Some((Origin::File("f.toml".into()), options))) {
        Ok(config) => {
            assert!((MEMORY_LEAST..=MEMORY_LARGEST).contains(&config.memory));
            assert_eq!(config.memory % PAGE, 0);
            assert!(config.cpus > 0);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});
