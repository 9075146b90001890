use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn facts(kernel: bool, methods: Option<&str>, flr: bool, power: bool) -> Facts {
    let methods = methods.map(|methods| methods.split_whitespace().map(str::to_owned).collect());
    Facts { kernel, methods, flr, own: false, power }
}

#[test]
fn the_best_way_is_taken() {
    let ours = Bus::Ours(vec![address("01:00.0"), address("01:00.1")]);
    let others = Bus::Others(vec![address("01:00.1")]);
    let all = Method::Bus(vec![address("01:00.0"), address("01:00.1")]);
    let flr = Method::Function("flr".into());
    for (facts, bus, expected) in [
        (facts(true, Some("flr pm bus"), true, true), &ours, flr.clone()),
        (facts(true, Some("flr"), true, false), &others, flr.clone()),
        (facts(true, Some("pm bus"), false, true), &ours, all.clone()),
        (facts(true, Some("pm bus"), false, true), &others, Method::Power),
        (facts(true, Some("pm"), true, true), &Bus::Impossible, Method::Power),
        (facts(true, Some("bus"), false, false), &ours, Method::Function("bus".into())),
        (
            facts(true, Some("device_specific flr"), true, false),
            &ours,
            Method::Function("device_specific".into()),
        ),
        // Kernels that do not tell.
        (facts(true, None, true, true), &ours, flr),
        (facts(true, None, false, true), &ours, all.clone()),
        (facts(true, None, false, true), &others, Method::Power),
        (facts(true, None, false, false), &others, Method::Function("bus".into())),
        (facts(false, None, true, true), &ours, all.clone()),
        (facts(false, Some(""), false, false), &ours, all),
    ] {
        assert_eq!(plan(&facts, bus), expected, "{facts:?} {bus:?}");
    }
}

#[test]
fn a_chip_that_resets_itself_does_where_the_kernel_can_not() {
    let ours = Bus::Ours(vec![address("01:00.0")]);
    let own = |kernel, methods| Facts { own: true, ..facts(kernel, methods, false, true) };
    assert_eq!(plan(&own(false, None), &ours), Method::Own);
    assert_eq!(plan(&own(false, None), &Bus::Impossible), Method::Own);
    assert_eq!(plan(&own(true, Some("bus")), &ours), Method::Function("bus".into()));
    assert_eq!(plan(&own(true, Some("pm")), &ours), Method::Bus(vec![address("01:00.0")]));
}

#[test]
fn no_way_is_explained() {
    let none = facts(false, Some(""), false, false);
    let others = plan(&none, &Bus::Others(vec![address("01:00.1"), address("01:00.2")]));
    assert_eq!(
        others.to_string(),
        "none: a bus reset would also reset 0000:01:00.1, 0000:01:00.2, which this machine does not have: give \
         the guest those too"
    );
    let impossible = plan(&none, &Bus::Impossible).to_string();
    assert_eq!(impossible, "none: neither the function nor its bus can be reset");
}

proptest! {
    /// Nobody else's function is ever reset, and what is refused is named.
    #[test]
    fn only_what_is_ours_is_reset(
        affected in proptest::collection::btree_map((0u8..4, 0u8..8), 0u32..6, 0..8),
        ours in subsequence((0u32..6).collect::<Vec<_>>(), 0..6),
    ) {
        let all: Vec<Affected> = affected
            .iter()
            .map(|(&(device, function), &owner)| Affected {
                address: PciAddress::new(0, 1, device, function).unwrap(),
                owner,
            })
            .collect();
        let foreign: Vec<PciAddress> =
            all.iter().filter(|one| !ours.contains(&one.owner)).map(|one| one.address).collect();
        match bus(&all, Owners::Groups(&ours)) {
            Bus::Ours(set) => {
                prop_assert!(foreign.is_empty());
                prop_assert_eq!(set, all.iter().map(|one| one.address).collect::<Vec<_>>());
            }
            Bus::Others(others) => prop_assert_eq!(others, foreign),
            Bus::Impossible => prop_assert!(all.is_empty()),
        }
    }

    #[test]
    fn an_iommufd_decides_by_itself(owners in proptest::collection::vec(prop_oneof![Just(NOT_OWNED), 0u32..3], 1..5), all: bool) {
        let affected: Vec<Affected> = (0..)
            .zip(&owners)
            .map(|(function, owner)| Affected {
                address: PciAddress::new(0, 1, 0, function).unwrap(),
                owner: *owner,
            })
            .collect();
        let found = bus(&affected, Owners::Iommufd { all });
        prop_assert_eq!(matches!(found, Bus::Ours(_)), all);
        if let Bus::Others(others) = found {
            prop_assert!(!others.is_empty());
        }
    }
}
