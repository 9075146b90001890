//! From the table of a kind to a program for the kernel.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use syscalls::Sysno;

use super::calls::{self, Call};
use super::{Kind, Seccomp};

/// An ioctl's number and its type are its low half; above them are a size and a direction, which differ between
/// versions of a structure.
const NUMBER_AND_TYPE: u64 = 0xffff;

/// The program that confines threads of `kind`, if there is to be one.
///
/// # Errors
/// The table cannot be expressed, which a test holds for all kinds.
pub(super) fn of(kind: Kind, seccomp: Seccomp) -> io::Result<Option<BpfProgram>> {
    let otherwise = match seccomp {
        Seccomp::On => SeccompAction::Trap,
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Off => return Ok(None),
    };
    compile(kind, otherwise).map(Some).map_err(io::Error::other)
}

fn compile(kind: Kind, otherwise: SeccompAction) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls::of(kind) {
        let rules = rules.entry(number(call.number)).or_default();
        rules.extend(rule(call)?);
    }
    let ioctls = calls::ioctls(kind).map(|ioctl| check(1, NUMBER_AND_TYPE, ioctl.into()));
    let ioctls = ioctls.map(|check| SeccompRule::new(vec![check?])).collect::<Result<Vec<_>, _>>()?;
    // A call without any rule would be allowed whatever it asks for.
    if !ioctls.is_empty() {
        rules.insert(number(Sysno::ioctl), ioctls);
    }
    // A signal to oneself is how a panic ends the program, and how a vCPU is fetched from the guest.
    let ourselves = check(0, u32::MAX.into(), std::process::id().into())?;
    rules.insert(number(Sysno::tgkill), vec![SeccompRule::new(vec![ourselves])?]);
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// The conditions of a call, if it has any.
fn rule(call: &Call) -> Result<Option<SeccompRule>, seccompiler::BackendError> {
    let checks = call.conditions.iter().map(|it| check(it.argument, it.mask, it.value));
    let checks = checks.collect::<Result<Vec<_>, _>>()?;
    if checks.is_empty() { Ok(None) } else { SeccompRule::new(checks).map(Some) }
}

fn check(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    let half = mask <= u32::MAX.into();
    let len = if half { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
    SeccompCondition::new(argument, len, SeccompCmpOp::MaskedEq(mask), value)
}

fn number(call: Sysno) -> i64 {
    call.id().into()
}
