use super::*;

fn leaf(function: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
}

/// A host with everything.
fn host(vendor: &[u8; 4]) -> Vec<kvm_cpuid_entry2> {
    vec![
        leaf(0, 0x1f, u32::from_le_bytes(*vendor), 0, 0),
        leaf(1, 0x0a20_0f11, 0xff08_0800, VMX, HTT),
        leaf(4, 0xffff_c121, 0, 0, 0),
        leaf(4, 0xffff_c163, 0, 0, 0),
        leaf(7, 1, u32::MAX, u32::MAX, u32::MAX),
        kvm_cpuid_entry2 { index: 1, ..leaf(7, u32::MAX, u32::MAX, u32::MAX, u32::MAX) },
        leaf(0xa, 5, 5, 5, 5),
        leaf(0xb, 1, 2, 3, 4),
        leaf(KVM_SIGNATURE, KVM_FEATURES, 0x4b4d_564b, 0x564b_4d56, 0x4d),
        leaf(KVM_FEATURES, 1 << 24 | 8, 0, 0, 0),
        leaf(0x8000_0001, 0, 0, SVM | PERFCTR_CORE | CMP_LEGACY | 1, 0),
        leaf(0x8000_0008, 0x3030, 0, 0x7, 0),
        leaf(0x8000_001e, 9, 9, 9, 0),
    ]
}

fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    *leaves.iter().find(|leaf| leaf.function == function && leaf.index == index).expect("the leaf")
}

#[test]
fn each_vcpu_has_its_own_number_everywhere() {
    let cpuid = Cpuid::from_supported(&host(b"Auth"), 6, true);
    for id in 0..6 {
        let leaves = cpuid.of_vcpu(id as usize, None);
        assert_eq!(find(&leaves, 1, 0).ebx, id << 24 | 6 << 16 | 0x0800);
        for function in TOPOLOGY {
            for index in 0..3 {
                assert_eq!(find(&leaves, function, index).edx, id);
            }
        }
        assert_eq!(find(&leaves, 0x8000_001e, 0).eax, id);
    }
}

#[test]
fn the_topology_is_one_package_of_cores() {
    let leaves = Cpuid::from_supported(&host(b"Auth"), 6, true).of_vcpu(0, None);
    let cores = find(&leaves, 0xb, 1);
    assert_eq!((cores.eax, cores.ebx, cores.ecx), (3, 6, 0x201));
    let threads = find(&leaves, 0xb, 0);
    assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
    let size = find(&leaves, 0x8000_0008, 0);
    assert_eq!(size.ecx, 3 << 12 | 5);
    assert_ne!(find(&leaves, 1, 0).edx & HTT, 0);
    assert_ne!(find(&leaves, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
    // The first cache is of level 1 and one core's own, the other of level 3 and shared by all.
    let caches: Vec<u32> = leaves.iter().filter(|l| l.function == 4).map(|l| l.eax >> 14 & 0xfff).collect();
    assert_eq!(caches, [0, 5]);
}

#[test]
fn one_vcpu_is_one_core() {
    let leaves = Cpuid::from_supported(&host(b"Genu"), 1, false).of_vcpu(0, None);
    assert_eq!(find(&leaves, 1, 0).edx & HTT, 0);
    assert_eq!(find(&leaves, 0x8000_0001, 0).ecx, 1);
    assert_eq!(find(&leaves, 0xb, 1).eax, 0);
    assert_eq!(find(&leaves, 1, 0).ecx, HYPERVISOR);
}

#[test]
fn what_a_reset_can_not_bring_back_is_hidden() {
    let leaves = Cpuid::from_supported(&host(b"Auth"), 2, true).of_vcpu(1, None);
    assert_eq!(find(&leaves, 1, 0).ecx, HYPERVISOR | TSC_DEADLINE);
    assert_eq!(find(&leaves, 0x8000_0001, 0).ecx & (SVM | PERFCTR_CORE), 0);
    assert!(!leaves.iter().any(|leaf| leaf.function == 0xa));
}

#[test]
fn copies_by_bytes_are_not_advertised_as_fast() {
    let leaves = Cpuid::from_supported(&host(b"Auth"), 1, false).of_vcpu(0, None);
    let features = find(&leaves, 7, 0);
    assert_eq!((features.ebx, features.ecx, features.edx), (!0x200, u32::MAX, !0x10));
    let more = find(&leaves, 7, 1);
    assert_eq!((more.ebx, more.edx), (u32::MAX, u32::MAX), "another leaf's bits of the same numbers");
}

#[test]
fn the_guest_learns_of_kvm_and_of_the_clock() {
    let cpuid = Cpuid::from_supported(&host(b"Auth"), 1, true);
    let leaves = cpuid.of_vcpu(0, Some(2_600_000));
    let features = find(&leaves, KVM_FEATURES, 0).eax;
    assert_eq!(features, 1 << 24 | 8 | NOP_IO_DELAY);
    assert_eq!(find(&leaves, KVM_SIGNATURE, 0).eax, KVM_FREQUENCIES);
    assert_eq!(find(&leaves, KVM_FREQUENCIES, 0).eax, 2_600_000);
    assert_eq!(cpuid.of_vcpu(0, None).len() + 1, leaves.len());
}

#[test]
fn physical_addresses_have_a_sane_size() {
    let bits = |leaves: &[kvm_cpuid_entry2]| Cpuid::from_supported(leaves, 1, false).phys_bits();
    assert_eq!(bits(&host(b"Auth")), 48);
    assert_eq!(bits(&[]), 36);
    assert_eq!(bits(&[leaf(0x8000_0008, 0x40, 0, 0, 0)]), 52);
    // Page tables that reach less far than the processor.
    assert_eq!(bits(&[leaf(0x8000_0008, 0x0030_3934, 0, 0, 0)]), 48);
}

#[test]
fn the_guest_is_told_the_size_that_it_is_given() {
    let mut cpuid = Cpuid::from_supported(&[leaf(0x8000_0008, 0x0030_3934, 0, 0, 0)], 1, false);
    cpuid.set_phys_bits(39);
    assert_eq!(find(&cpuid.of_vcpu(0, None), 0x8000_0008, 0).eax, 0x3927);
    assert_eq!(cpuid.phys_bits(), 39);
}

#[test]
fn the_vendor_is_read_in_its_order_of_registers() {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let leaves = [leaf(0, 1, word(b"Genu"), word(b"ntel"), word(b"ineI"))];
    assert_eq!(&Cpuid::from_supported(&leaves, 1, false).vendor(), b"GenuineIntel");
    assert_eq!(Cpuid::from_supported(&[], 1, false).vendor(), [0; 12]);
}
