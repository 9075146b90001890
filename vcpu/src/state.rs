//! The state of one vCPU, read when it was made and written back when the machine is reset.
//!
//! These ioctls are called on the vCPU's own thread (or before it exists), never while it runs.

// UNSAFETY: kvm-ioctls cannot know how long the kernel takes a `kvm_xsave` to be.
#![expect(unsafe_code)]

use kvm_bindings::{
    CpuId, KVM_MP_STATE_RUNNABLE, KVM_VCPUEVENT_VALID_SIPI_VECTOR, Msrs, kvm_cpuid_entry2, kvm_debugregs,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd};
use vmm_sys_util::errno;

use crate::kick::OwnedVcpu;
use crate::run::{self, Exit};
use crate::vm::Vm;

/// Time stamp counter. Zero when written asks KVM to keep the counters of all vCPUs in step.
const IA32_TSC: u32 = 0x10;

/// CR0 bits CD and NW, both set at power-on: whether the caches work. They change together, since NW
/// without CD is invalid.
const CR0_CACHE_DISABLE: u64 = 0x6000_0000;

/// MSRs that the list of KVM leaves out and that firmware writes: the memory type ranges, and the
/// page attribute table.
const MEMORY_TYPES: [u32; 29] = [
    0x2ff, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x200, 0x201, 0x202,
    0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f, 0x277,
];

/// How many exits a vCPU may still make while it finishes the instruction it was in: the longest
/// string instruction goes back to the guest after 1024 elements.
const EXITS_TO_FINISH: u32 = 4096;

/// What could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An ioctl failed.
    #[error("{what}: {source}")]
    Ioctl {
        /// What of the state.
        what: &'static str,
        /// What the kernel said.
        source: errno::Error,
    },
    /// The vCPU stays in an instruction.
    #[error("the instruction it was in does not end")]
    Unfinished,
}

fn named(what: &'static str) -> impl FnOnce(errno::Error) -> StateError {
    move |source| StateError::Ioctl { what, source }
}

/// The whole state of a vCPU.
pub(crate) struct State {
    regs: kvm_regs,
    sregs: kvm_sregs,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    events: kvm_vcpu_events,
    xsave: Option<Box<kvm_xsave>>,
    xcrs: Option<kvm_xcrs>,
    debug: Option<kvm_debugregs>,
    msrs: Vec<kvm_msr_entry>,
}

impl State {
    /// Gives a new vCPU its features, and reads its state.
    pub(crate) fn at_creation(
        vm: &Vm,
        vcpu: &VcpuFd,
        cpuid: &[kvm_cpuid_entry2],
    ) -> Result<State, StateError> {
        let leaves = CpuId::from_entries(cpuid).map_err(|_| errno::Error::new(libc::E2BIG));
        leaves.and_then(|leaves| vcpu.set_cpuid2(&leaves)).map_err(named("processor features"))?;
        let mut regs = vcpu.get_regs().map_err(named("registers"))?;
        // At reset EDX holds the processor's signature.
        let signature = cpuid.iter().find(|leaf| leaf.function == 1);
        regs.rdx = signature.map_or(regs.rdx, |leaf| u64::from(leaf.eax));
        vcpu.set_regs(&regs).map_err(named("registers"))?;
        let mut events = vcpu.get_vcpu_events().map_err(named("events"))?;
        // Makes KVM forget a start-up vector that came before the reset.
        events.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
        let has = |cap| vm.kvm().check_extension(cap);
        let xsave = has(Cap::Xsave).then(|| vcpu.get_xsave().map(Box::new));
        let xcrs = has(Cap::Xcrs).then(|| vcpu.get_xcrs());
        let debug = has(Cap::Debugregs).then(|| vcpu.get_debug_regs());
        Ok(State {
            regs,
            sregs: vcpu.get_sregs().map_err(named("special registers"))?,
            lapic: vcpu.get_lapic().map_err(named("local APIC"))?,
            mp_state: vcpu.get_mp_state().map_err(named("multiprocessing state"))?,
            events,
            xsave: xsave.transpose().map_err(named("floating point state"))?,
            xcrs: xcrs.transpose().map_err(named("extended control registers"))?,
            debug: debug.transpose().map_err(named("debug registers"))?,
            msrs: read_msrs(vm, vcpu)?,
        })
    }

    /// Throws away what the vCPU is doing and makes this its state. Only for the parked thread that
    /// owns it.
    pub(crate) fn restore(&self, vcpu: &mut OwnedVcpu) -> Result<(), StateError> {
        finish_instruction(vcpu)?;
        let vcpu = vcpu.fd();
        // Reading makes KVM take in an INIT or a start-up message that is still on its way.
        vcpu.get_mp_state().map_err(named("multiprocessing state"))?;
        vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
            .map_err(named("multiprocessing state"))?;
        // On AMD a triple fault without paging makes KVM lose the root of the nested page tables, which
        // it finds again only when a control register changes: so this one does, to and fro.
        let other_cr0 = kvm_sregs { cr0: self.sregs.cr0 ^ CR0_CACHE_DISABLE, ..self.sregs };
        vcpu.set_sregs(&other_cr0).map_err(named("special registers"))?;
        vcpu.set_sregs(&self.sregs).map_err(named("special registers"))?;
        vcpu.set_regs(&self.regs).map_err(named("registers"))?;
        if let Some(xcrs) = &self.xcrs
            && xcrs.nr_xcrs > 0
        {
            vcpu.set_xcrs(xcrs).map_err(named("extended control registers"))?;
        }
        if let Some(xsave) = &self.xsave {
            // SAFETY: the structure was filled by KVM_GET_XSAVE of this kernel. KVM reads more than
            // its 4096 bytes only for features that a process must first ask the kernel for
            // (arch_prctl), which this program never does.
            unsafe { vcpu.set_xsave(xsave) }.map_err(named("floating point state"))?;
        }
        vcpu.set_lapic(&self.lapic).map_err(named("local APIC"))?;
        write_msrs(vcpu, &self.msrs)?;
        if let Some(debug) = &self.debug {
            vcpu.set_debug_regs(debug).map_err(named("debug registers"))?;
        }
        vcpu.set_vcpu_events(&self.events).map_err(named("events"))?;
        vcpu.set_mp_state(self.mp_state).map_err(named("multiprocessing state"))
    }
}

/// Lets KVM finish the instruction that the last exit interrupted: an answer still in the shared page
/// would else be taken for the first instruction after the reset. Its accesses go nowhere.
fn finish_instruction(vcpu: &mut OwnedVcpu) -> Result<(), StateError> {
    vcpu.immediate_exit().set(true);
    for _ in 0..EXITS_TO_FINISH {
        match run::enter(vcpu.fd_mut()) {
            Exit::PortIn { data, .. } | Exit::MemoryRead { data, .. } => data.fill(0xff),
            Exit::PortOut { .. } | Exit::MemoryWrite { .. } => {}
            Exit::Interrupted | Exit::Shutdown | Exit::NoMemory(_) | Exit::Failed(_) => return Ok(()),
        }
    }
    Err(StateError::Unfinished)
}

/// MSRs that are not part of the state to go back to.
fn is_kept(index: u32) -> bool {
    match index {
        // What a processor can do, as set with its features.
        0x8b | 0xcd | 0x10a | 0x345 | 0x480..=0x491 | 0xc000_0104 => false,
        // Another hypervisor's interface, which is not offered; touching these would switch it on.
        0x4000_0000..=0x4000_01ff => false,
        _ => true,
    }
}

/// Reads every MSR that can be read and written back.
fn read_msrs(vm: &Vm, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, StateError> {
    let list = vm.kvm().get_msr_index_list().map_err(named("list of MSRs"))?;
    let mut indices: Vec<u32> = list.as_slice().iter().copied().filter(|index| is_kept(*index)).collect();
    indices.extend(MEMORY_TYPES);
    indices.sort_unstable();
    indices.dedup();
    let mut entries = Vec::with_capacity(indices.len());
    for index in indices {
        let Ok(mut one) = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }]) else {
            continue;
        };
        if !matches!(vcpu.get_msrs(&mut one), Ok(1)) {
            continue;
        }
        if let [entry] = one.as_mut_slice()
            && index == IA32_TSC
        {
            entry.data = 0;
        }
        if matches!(vcpu.set_msrs(&one), Ok(1)) {
            entries.extend_from_slice(one.as_slice());
        }
    }
    Ok(entries)
}

/// Writes MSRs, each of which was written before.
fn write_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), StateError> {
    let invalid = || named("MSRs")(errno::Error::new(libc::EINVAL));
    let all = Msrs::from_entries(entries).map_err(|_| invalid())?;
    let written = vcpu.set_msrs(&all).map_err(named("MSRs"))?;
    match entries.get(written) {
        None => Ok(()),
        Some(entry) => {
            tracing::error!(msr = format_args!("{:#x}", entry.index), "MSR refused at reset");
            Err(invalid())
        }
    }
}
