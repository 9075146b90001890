//! Coalesced zones: ranges of ports and memory whose writes the kernel collects, all of them or none.
//!
//! A write that lies wholly inside one zone goes into the ring ([`crate::Coalesced`]) as long as that
//! has room; every read, and every other write, exits as before. A memory slot over a zone hides it.
//! Who collects must look after the ring: KVM gives no notice.
//!
//! Zones come while all vCPUs are parked, as all changes of the map do, and go while they run, unlike those:
//! to give one up takes the kernel milliseconds, and the ring stays in order meanwhile
//! ([`Zones::unregister`]).

use std::fmt;
use std::sync::Arc;

use kvm_ioctls::IoEventAddress;
use trapline_io::addr::{Position, Span};
use trapline_io::device::Range;
use vmm_sys_util::errno;

use crate::vm::Vm;
use crate::world::Parked;

/// Why zones could not be changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// This KVM cannot collect writes there.
    #[error("this kernel's KVM cannot collect writes to {}", Place(*.0))]
    Unable(Range),
    /// KVM refused to collect writes to a range; none is collected.
    #[error("KVM refused to collect writes to {}: {source}", Place(*.range))]
    Register {
        /// Which range.
        range: Range,
        /// What the kernel said.
        source: errno::Error,
    },
    /// KVM still collects writes to a range, and to those before it in the list.
    #[error("KVM goes on collecting writes to {}: {source}", Place(*.range))]
    Unregister {
        /// Which range.
        range: Range,
        /// What the kernel said.
        source: errno::Error,
    },
    /// A vCPU's thread must not wait so long.
    #[error("zones cannot be changed on the thread of vcpu{0}")]
    OnVcpu(usize),
}

/// A range as a person reads it.
struct Place(Range);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Range::Ports(span) => write!(f, "ports {:#x}-{:#x}", span.first().0, span.last().0),
            Range::Memory(span) => write!(f, "memory {:#x}-{:#x}", span.first().0, span.last().0),
        }
    }
}

/// A fixed list of zones, not registered at first. Dropping this unregisters them.
#[derive(Debug)]
pub struct Zones {
    vm: Arc<Vm>,
    ranges: Vec<Range>,
    /// How many of `ranges` KVM has, from the first on: all or none, but after a failure.
    registered: usize,
}

impl Zones {
    /// These ranges, each a zone of its own: a write that reaches from one into another exits.
    pub fn new(vm: Arc<Vm>, ranges: Vec<Range>) -> Zones {
        Zones { vm, ranges, registered: 0 }
    }

    /// Whether writes are collected.
    pub fn are_registered(&self) -> bool {
        self.registered > 0
    }

    /// From now on writes are collected. Nothing is done where they are already. One system call per
    /// zone, which waits for vCPUs on some kernels.
    ///
    /// # Errors
    /// See [`ZoneError`]. What was registered before the failure is unregistered again.
    pub fn register(&mut self, parked: &Parked<'_>) -> Result<(), ZoneError> {
        off_vcpu(parked)?;
        if self.are_registered() {
            return Ok(());
        }
        for &range in &self.ranges {
            let done = self.add(range);
            if let Err(error) = done {
                // Its own error would only hide the cause; what stays is seen in `are_registered`.
                let _ = self.remove_all();
                return Err(error);
            }
            self.registered += 1;
        }
        Ok(())
    }

    /// From now on writes exit; what was collected stays in the ring, to be taken by the caller. Takes
    /// milliseconds for each zone, since the kernel waits until no processor looks at the zone any more: not
    /// to be called on a vCPU's thread, nor, unless that cannot be helped, with the vCPUs parked. While
    /// they run, each write is either collected or exits, and who exits takes out of the ring first.
    ///
    /// # Errors
    /// See [`ZoneError`]. The zone named and those before it are still there; another call tries again.
    pub fn unregister(&mut self) -> Result<(), ZoneError> {
        self.remove_all()
    }

    fn add(&self, range: Range) -> Result<(), ZoneError> {
        // A kernel that knows no ports would take the number for that of a memory zone.
        let able = match range {
            Range::Ports(_) => self.vm.collects_ports(),
            Range::Memory(_) => self.vm.collects_memory(),
        };
        let (address, len) = zone(range).filter(|_| able).ok_or(ZoneError::Unable(range))?;
        self.vm
            .fd()
            .register_coalesced_mmio(address, len)
            .map_err(|source| ZoneError::Register { range, source })
    }

    fn remove_all(&mut self) -> Result<(), ZoneError> {
        while let Some(&range) = self.registered.checked_sub(1).and_then(|last| self.ranges.get(last)) {
            if let Some((address, len)) = zone(range) {
                self.vm
                    .fd()
                    .unregister_coalesced_mmio(address, len)
                    .map_err(|source| ZoneError::Unregister { range, source })?;
            }
            self.registered -= 1;
        }
        Ok(())
    }
}

impl Drop for Zones {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            tracing::error!(%error, "coalesced zone");
        }
    }
}

/// A range as KVM takes it; `None` if it is too long.
fn zone(range: Range) -> Option<(IoEventAddress, u32)> {
    match range {
        Range::Ports(span) => Some((IoEventAddress::Pio(span.first().raw()), len(span)?)),
        Range::Memory(span) => Some((IoEventAddress::Mmio(span.first().raw()), len(span)?)),
    }
}

fn len<A: Position>(span: Span<A>) -> Option<u32> {
    u32::try_from(span.extent()).ok()?.checked_add(1)
}

fn off_vcpu(parked: &Parked<'_>) -> Result<(), ZoneError> {
    parked.initiator().map_or(Ok(()), |vcpu| Err(ZoneError::OnVcpu(vcpu)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trapline_io::{Gpa, Port};

    #[test]
    fn a_message_names_the_range_and_the_cause() {
        let ports = Range::Ports(Span::new(Port(0x3d4), Port(0x3d5)).unwrap());
        let error = ZoneError::Register { range: ports, source: errno::Error::new(libc::ENOSPC) };
        assert_eq!(
            error.to_string(),
            "KVM refused to collect writes to ports 0x3d4-0x3d5: No space left on device (os error 28)"
        );
        let memory = Range::Memory(Span::new(Gpa(0xa0000), Gpa(0xbffff)).unwrap());
        assert_eq!(
            ZoneError::Unable(memory).to_string(),
            "this kernel's KVM cannot collect writes to memory 0xa0000-0xbffff"
        );
    }

    #[test]
    fn a_range_longer_than_a_zone_is_none() {
        let all = Span::new(Gpa(0), Gpa(u64::MAX)).unwrap();
        assert_eq!(zone(Range::Memory(all)).map(|(_, len)| len), None);
        let most = Span::new(Gpa(0), Gpa(0xffff_fffe)).unwrap();
        assert_eq!(zone(Range::Memory(most)).map(|(_, len)| len), Some(u32::MAX));
    }
}
