//! Whether a function's BARs lie where the host has them.

use trapline_devices::pci::Moves;

/// Where the BARs of a function of the host lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// Wherever the guest's firmware puts them.
    #[default]
    Off,
    /// At the host's addresses; and what becomes of a guest that moves one.
    On(Moves),
}

impl Identity {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Identity::Off => "off",
            Identity::On(Moves::Refuse) => "on",
            Identity::On(Moves::Follow) => "follow",
            Identity::On(Moves::Stop) => "stop",
        }
    }
}

/// Parses `on`, `off`, or what becomes of a guest that moves a BAR.
pub(super) fn parse(text: &str) -> Result<Identity, String> {
    match text {
        "off" => Ok(Identity::Off),
        "on" | "refuse" => Ok(Identity::On(Moves::Refuse)),
        "follow" => Ok(Identity::On(Moves::Follow)),
        "stop" => Ok(Identity::On(Moves::Stop)),
        _ => Err("not known; give on, off, or what becomes of a guest that moves a BAR: refuse (as on), follow or stop"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Adapters, ConfigError, Options, RunConfig};
    use super::*;

    fn config(identity: Option<&str>, device: &str) -> Result<RunConfig, ConfigError> {
        let options = Options {
            identity: identity.map(str::to_owned),
            device: vec![device.to_owned()],
            ..Options::default()
        };
        RunConfig::new(options, None)
    }

    fn of(identity: Option<&str>, device: &str) -> (Identity, Option<Identity>) {
        let config = config(identity, device).unwrap();
        let Adapters::Given(devices) = config.adapters else { panic!("{device}") };
        (config.identity, devices[0].identity)
    }

    #[test]
    fn a_run_and_each_of_its_functions_may_say_it() {
        let on = Identity::On;
        assert_eq!(of(None, "01:00.0"), (Identity::Off, None));
        assert_eq!(of(Some("on"), "01:00.0"), (on(Moves::Refuse), None));
        assert_eq!(of(Some("stop"), "01:00.0,identity=off"), (on(Moves::Stop), Some(Identity::Off)));
        assert_eq!(of(None, "01:00.0,identity=on"), (Identity::Off, Some(on(Moves::Refuse))));
        assert_eq!(of(None, "01:00.0,identity=refuse").1, Some(on(Moves::Refuse)));
        assert_eq!(of(None, "01:00.0,identity=follow").1, Some(on(Moves::Follow)));
    }

    #[test]
    fn its_word_is_what_is_parsed() {
        for word in ["off", "on", "follow", "stop"] {
            assert_eq!(parse(word).unwrap().word(), word);
        }
    }

    #[test]
    fn what_can_not_be_says_why() {
        for (run, device, problem) in [
            (Some("x"), "01:00.0", "--identity x: not known; give on, off, or"),
            (None, "01:00.0,identity=yes", "identity=yes is not known; give on, off, or"),
            (None, "01:00.0,identity=on,identity=on", "identity is given twice"),
            (
                None,
                "vfio-user:s,identity=on",
                "vfio-user:s is no function of this host, so that it has no addresses",
            ),
        ] {
            let error = config(run, device).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert!(config(None, "vfio-user:s,identity=off").is_ok());
        assert!(config(Some("on"), "vfio-user:s").is_ok(), "it is for those that can");
    }
}
