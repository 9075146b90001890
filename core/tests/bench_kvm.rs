//! The benchmark's guest on this host's KVM, with the null device. Needs /dev/kvm.

use std::time::Duration;

use trapline::bench::cases::{CASES, named};
use trapline::bench::measure::{self, Plan};
use trapline::bench::report::Report;
use trapline::bench::{Device, Way};
use trapline::config::{Interface, Seccomp};
use trapline_io::endpoint::Service;
use trapline_vcpu::Vm;

fn run(cases: &[&str], windows: &[Way], service: Service) -> Option<Report> {
    if let Err(error) = Vm::new() {
        println!("skipped: {error}");
        return None;
    }
    let plan = Plan {
        device: Device::Null,
        vfio: Interface::Auto,
        seccomp: Seccomp::On,
        windows: windows.to_vec(),
        services: vec![service],
        cases: cases.iter().map(|name| named(name).unwrap()).collect(),
        rounds: 1,
        slice: Duration::from_millis(2),
    };
    Some(measure::run(&plan, |_, _| {}).unwrap())
}

#[test]
fn accesses_are_timed_beside_their_baselines() {
    let Some(report) = run(&["port-in", "bar-read-trapped"], &[Way::Strict], Service::Adaptive) else {
        return;
    };
    for (case, baseline) in [("port-in", "bare"), ("bar-read-trapped", "bare+file")] {
        let strict = report.find(case, "strict adaptive").unwrap();
        assert_eq!(strict.exits, Some(1.0), "{case}");
        assert!(report.find(case, baseline).unwrap().ns > 0.0, "{case}");
        assert!(strict.ratios[baseline] > 0.0, "{case}");
        let total = &strict.stages["total"];
        assert!(total.count > 0 && total.p50 <= total.p99_99 && total.max >= total.min, "{case}");
        assert_eq!(total.buckets.iter().map(|(_, count)| count).sum::<u64>(), total.count, "{case}");
    }
}

/// Every case comes to its end: what it is made of can be carried out, 8 bytes at once included.
#[test]
fn every_case_comes_to_its_end_with_the_worker_too() {
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    let Some(report) = run(&names, &[Way::Strict], Service::Uring) else { return };
    for (case, found) in CASES.iter().zip(&report.cases) {
        assert_eq!(found.not_available, None, "{}", case.name);
        let strict = report.find(case.name, "strict uring").unwrap();
        assert!(strict.ns > 0.0, "{}", case.name);
        let exits = match case.name {
            "nop" | "bar-read-mapped" | "bar-write-mapped" => None,
            // The address register is written once for a row of reads.
            "config-read" => Some(65.0 / 64.0),
            _ => Some(f64::from(case.accesses)),
        };
        match exits {
            Some(exits) => assert!((strict.exits.unwrap() - exits).abs() < 1e-9, "{}: {strict:?}", case.name),
            None => assert!(strict.exits.unwrap_or(0.0) < 0.01, "{}: {:?}", case.name, strict.exits),
        }
    }
}
