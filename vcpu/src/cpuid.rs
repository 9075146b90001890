//! What the guest's processors say of themselves: what this host's KVM supports, less what cannot be
//! reset or makes no sense, with each vCPU's own numbers.
//!
//! The topology is one package of as many cores as there are vCPUs, one thread each. The numbers of
//! the local APICs are those of the vCPUs.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Cap;
use vmm_sys_util::errno;

use crate::vm::Vm;

/// CPUID 1 ECX: virtualisation by Intel's VMX.
const VMX: u32 = 1 << 5;
/// CPUID 1 ECX: the local APIC's timer can be set by the time stamp counter.
const TSC_DEADLINE: u32 = 1 << 24;
/// CPUID 1 ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// CPUID 1 EDX: the number of processors of the package is valid.
const HTT: u32 = 1 << 28;
/// CPUID 80000001h ECX: the package has several cores (AMD).
const CMP_LEGACY: u32 = 1 << 1;
/// CPUID 80000001h ECX: virtualisation by AMD's SVM.
const SVM: u32 = 1 << 2;
/// CPUID 80000001h ECX: more performance counters (AMD).
const PERFCTR_CORE: u32 = 1 << 23;

/// CPUID 7.0 EBX: `rep movsb` is fast (ERMS), Intel SDM volume 2, CPUID.
const FAST_STRINGS: u32 = 1 << 9;
/// CPUID 7.0 EDX: `rep movsb` is fast for few bytes too (FSRM).
const FAST_SHORT_STRINGS: u32 = 1 << 4;

/// The hypervisor's own leaves.
const KVM_SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;
/// Frequencies: EAX the time stamp counter, EBX the local APIC's timer, both in kHz. SeaBIOS reads it.
const KVM_FREQUENCIES: u32 = 0x4000_0010;
/// KVM's emulated local APIC timer ticks at 1 GHz.
const APIC_TIMER_KHZ: u32 = 1_000_000;

/// KVM_FEATURE_NOP_IO_DELAY: no delay is needed between port accesses, which saves the guest's kernel
/// a write to port 80h after each.
const NOP_IO_DELAY: u32 = 1 << 1;

/// The first letters of AMD's name, CPUID 0 EBX.
const AUTH: u32 = u32::from_le_bytes(*b"Auth");

/// The leaves that tell how the bits of an APIC number are used, of which a guest reads one.
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];

/// The leaf that tells how wide addresses are: EAX 7:0 physical ones, 23:16 those of a guest, if they are
/// narrower (AMD APM volume 3, section E.4.7; KVM tells there what its page tables reach).
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// What to assume where a host says nothing of its physical addresses.
const LEAST_PHYS_BITS: u8 = 36;
/// The most that x86 has.
const MOST_PHYS_BITS: u8 = 52;

/// The features that all vCPUs have in common.
#[derive(Clone, Debug)]
pub struct Cpuid {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u32,
}

impl Cpuid {
    /// What `vcpus` vCPUs of this host's KVM can have.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn of_host(vm: &Vm, vcpus: usize) -> Result<Cpuid, errno::Error> {
        let supported = vm.kvm().get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let deadline = vm.kvm().check_extension(Cap::TscDeadlineTimer);
        let mut cpuid = Cpuid::from_supported(supported.as_slice(), vcpus, deadline);
        let bits = vm.phys_bits().unwrap_or_else(|| cpuid.phys_bits());
        cpuid.set_phys_bits(bits);
        Ok(cpuid)
    }

    /// The same from a list of leaves: for any host.
    fn from_supported(supported: &[kvm_cpuid_entry2], vcpus: usize, deadline: bool) -> Cpuid {
        let vcpus = u32::try_from(vcpus).unwrap_or(u32::MAX).max(1);
        let amd = supported.iter().any(|leaf| leaf.function == 0 && leaf.ebx == AUTH);
        let mut entries: Vec<kvm_cpuid_entry2> =
            supported.iter().copied().filter(|leaf| !is_hidden(leaf.function)).collect();
        for leaf in &mut entries {
            common(leaf, vcpus, deadline, amd);
        }
        Cpuid { entries, vcpus }
    }

    /// The leaves of one vCPU. `tsc_khz` is the frequency of its time stamp counter, if known.
    pub(crate) fn of_vcpu(&self, vcpu: usize, tsc_khz: Option<u32>) -> Vec<kvm_cpuid_entry2> {
        let id = u32::try_from(vcpu).unwrap_or(u32::MAX);
        let mut entries = self.entries.clone();
        for leaf in &mut entries {
            match leaf.function {
                1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | id << 24,
                0x8000_001e => (leaf.eax, leaf.ebx) = (id, id & 0xff),
                _ => {}
            }
        }
        let highest = entries.iter().find(|leaf| leaf.function == 0).map_or(0, |leaf| leaf.eax);
        for function in TOPOLOGY.into_iter().filter(|function| *function <= highest) {
            entries.extend(self.topology(function, id));
        }
        if let Some(eax) = tsc_khz
            && let Some(signature) = entries.iter_mut().find(|leaf| leaf.function == KVM_SIGNATURE)
        {
            signature.eax = signature.eax.max(KVM_FREQUENCIES);
            let ebx = APIC_TIMER_KHZ;
            entries.push(kvm_cpuid_entry2 { function: KVM_FREQUENCIES, eax, ebx, ..Default::default() });
        }
        entries
    }

    /// One topology leaf: a level of threads, of which a core has one, and a level of cores.
    fn topology(&self, function: u32, id: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: kind << 8 | index,
            edx: id,
            ..Default::default()
        };
        [level(0, 0, 1, 1), level(1, id_bits(self.vcpus), self.vcpus, 2), level(2, 0, 0, 0)]
    }

    /// How many bits a guest physical address has, 36 to 52: what bounds the places for memory and BARs.
    pub fn phys_bits(&self) -> u8 {
        let leaf = self.entries.iter().find(|leaf| leaf.function == ADDRESS_SIZES);
        let [physical, _, guest, _] = leaf.map_or(0, |leaf| leaf.eax).to_le_bytes();
        let bits = if guest == 0 { physical } else { physical.min(guest) };
        bits.clamp(LEAST_PHYS_BITS, MOST_PHYS_BITS)
    }

    /// The name of who made the processor, CPUID leaf 0 (EBX, EDX, ECX); zeros where there is none.
    pub fn vendor(&self) -> [u8; 12] {
        let leaf = self.entries.iter().find(|leaf| leaf.function == 0);
        let words = leaf.map_or([0; 3], |leaf| [leaf.ebx, leaf.edx, leaf.ecx]);
        let mut name = [0; 12];
        name.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        name
    }

    /// Says how many bits a physical address has: firmware takes that for the end of what it may use.
    fn set_phys_bits(&mut self, bits: u8) {
        for leaf in self.entries.iter_mut().filter(|leaf| leaf.function == ADDRESS_SIZES) {
            leaf.eax = leaf.eax & 0xff00_ff00 | u32::from(bits);
        }
    }
}

/// Leaves that the guest does not see: performance counters, processor trace, enclaves, nested and
/// encrypted virtualisation, none of which a reset brings back; and those made anew for each vCPU.
fn is_hidden(function: u32) -> bool {
    matches!(function, 0xa | 0x12 | 0x14 | 0x8000_000a | 0x8000_001f | 0x8000_0022 | KVM_FREQUENCIES)
        || TOPOLOGY.contains(&function)
}

/// What is the same on all vCPUs of one leaf.
fn common(leaf: &mut kvm_cpuid_entry2, vcpus: u32, deadline: bool, amd: bool) {
    match leaf.function {
        1 => {
            leaf.ebx = leaf.ebx & 0xff00_ffff | vcpus.min(255) << 16;
            leaf.ecx = leaf.ecx & !(VMX | TSC_DEADLINE) | HYPERVISOR;
            if deadline {
                leaf.ecx |= TSC_DEADLINE;
            }
            leaf.edx = leaf.edx & !HTT | if vcpus > 1 { HTT } else { 0 };
        }
        // The caches: type 0 ends the list; level 3 is shared by all cores, the others by none.
        4 | 0x8000_001d if leaf.eax & 0x1f != 0 => {
            let sharing = if leaf.eax >> 5 & 7 >= 3 { vcpus } else { 1 };
            leaf.eax = leaf.eax & 0x3fff | (sharing - 1).min(0xfff) << 14;
            if leaf.function == 4 {
                leaf.eax |= (vcpus - 1).min(0x3f) << 26;
            }
        }
        // A kernel that knows of these copies byte by byte, and in a trapped window each is an exit;
        // without them it copies eight at a time.
        7 if leaf.index == 0 => {
            leaf.ebx &= !FAST_STRINGS;
            leaf.edx &= !FAST_SHORT_STRINGS;
        }
        KVM_FEATURES => leaf.eax |= NOP_IO_DELAY,
        0x8000_0001 => {
            leaf.ecx &= !(SVM | PERFCTR_CORE | CMP_LEGACY);
            if amd && vcpus > 1 {
                leaf.ecx |= CMP_LEGACY;
            }
        }
        ADDRESS_SIZES => leaf.ecx = (vcpus - 1).min(0xff) | id_bits(vcpus).min(15) << 12,
        // One node.
        0x8000_001e => (leaf.ebx, leaf.ecx) = (0, 0),
        _ => {}
    }
}

/// How many bits tell `vcpus` vCPUs apart.
fn id_bits(vcpus: u32) -> u32 {
    vcpus.max(1).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests;
