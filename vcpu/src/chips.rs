//! The state of the interrupt controllers, the timer and the clock in the kernel, read when the
//! machine is made and written back when it is reset.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
    kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::errno;

/// The controllers in the order in which they are written back.
const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// A copy of all in-kernel devices of a machine but the local APICs.
pub(crate) struct Chips {
    controllers: [kvm_irqchip; 3],
    pit: kvm_pit_state2,
    clock: kvm_clock_data,
}

impl std::fmt::Debug for Chips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chips").field("pit", &self.pit).finish_non_exhaustive()
    }
}

impl Chips {
    /// Reads the present state.
    pub(crate) fn read(vm: &VmFd) -> Result<Chips, errno::Error> {
        let mut controllers = CONTROLLERS.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for controller in &mut controllers {
            vm.get_irqchip(controller)?;
        }
        let clock = kvm_clock_data { clock: vm.get_clock()?.clock, ..Default::default() };
        Ok(Chips { controllers, pit: vm.get_pit2()?, clock })
    }

    /// Makes this state the present one. The timer goes first, so that it raises no interrupt in a
    /// controller that is already back.
    pub(crate) fn write(&self, vm: &VmFd) -> Result<(), errno::Error> {
        vm.set_pit2(&self.pit)?;
        for controller in &self.controllers {
            vm.set_irqchip(controller)?;
        }
        vm.set_clock(&self.clock)
    }
}
