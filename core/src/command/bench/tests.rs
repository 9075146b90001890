use clap::Parser;

use super::*;
use crate::sandbox::Seccomp;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

fn parsed(arguments: &str) -> Result<Plan> {
    let words = std::iter::once("bench").chain(arguments.split_whitespace());
    plan(&Cli::try_parse_from(words)?.arguments)
}

#[test]
fn without_options_everything_is_measured_on_the_software_adapter() {
    let plan = parsed("").unwrap();
    assert_eq!(plan.device, Device::Adapters(Adapters::Software));
    assert_eq!(plan.windows, [Way::Strict, Way::Coalesced, Way::Shadowed]);
    assert_eq!(plan.services, [Service::Adaptive]);
    assert_eq!((plan.cases.len(), plan.rounds), (CASES.len(), 5));
    assert_eq!(plan.seccomp, Seccomp::On);
}

#[test]
fn options_choose() {
    let plan =
        parsed("--device null --window strict,shadowed --io uring --only exit --only port-in").unwrap();
    assert_eq!(plan.device, Device::Null);
    assert_eq!((plan.windows, plan.services), (vec![Way::Strict, Way::Shadowed], vec![Service::Uring]));
    assert_eq!(plan.cases, [1, 2]);
    assert_eq!(parsed("--seccomp off").unwrap().seccomp, Seccomp::Off);
    let plan = parsed("--all --device 01:00.0,root-port=off").unwrap();
    assert_eq!((plan.windows.len(), plan.services.len()), (3, 3));
    assert!(matches!(plan.device, Device::Adapters(Adapters::Given(devices)) if devices.len() == 1));
}

#[test]
fn nothing_is_measured_behind_a_root_port_that_nobody_sets_up() {
    let Device::Adapters(Adapters::Given(devices)) = parsed("--device 01:00.0").unwrap().device else {
        panic!("no device")
    };
    assert_eq!(devices.iter().map(|device| device.root_port).collect::<Vec<_>>(), [Some(false)]);
    let refused = parsed("--device 01:00.0,root-port=on").unwrap_err().to_string();
    assert!(refused.contains("sets up no bridge"), "{refused}");
}

#[test]
fn what_can_not_be_measured_is_said() {
    let said = |arguments| parsed(arguments).unwrap_err().to_string();
    assert!(said("--device none").contains("give null"));
    let unknown = said("--only scrol");
    assert!(unknown.contains("scrol") && unknown.contains("mode-set"), "{unknown}");
    assert!(said("--device nothing").starts_with("--device nothing"));
    assert!(parsed("--rounds 0").is_err() && parsed("--all --io uring").is_err());
}

/// Not after minutes of measuring.
#[test]
fn what_has_no_place_is_said_before() {
    let said = |arguments: &str| {
        let words = std::iter::once("bench").chain(arguments.split_whitespace());
        check_outputs(&Cli::try_parse_from(words).unwrap().arguments).map_err(|error| error.to_string())
    };
    assert!(
        said("--json /no/such/file").unwrap_err().starts_with("--json /no/such/file: there is no directory")
    );
    assert_eq!(said("--html /"), Err("--html /: this is a directory; name a file in it".into()));
    assert!(said("--json - --compare old.json").unwrap_err().contains("give --html"));
    assert_eq!(said("--json - --html /dev/null --compare old.json"), Ok(()));
    assert_eq!(said("--json /dev/null --compare old.json"), Ok(()));
}
