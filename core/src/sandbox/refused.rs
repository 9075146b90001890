//! Installing a filter, and the end of a program that was refused a system call.

// UNSAFETY: a filter is handed to the kernel by its address, what was refused is in a structure that the kernel
// hands to a signal handler by its address, and a handler may end the process only in the way that the C library
// marks as unsafe.
#![expect(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::sync::Once;

use libc::{c_int, c_long, c_void, siginfo_t};
use seccompiler::sock_filter;
use syscalls::Sysno;
use vmm_sys_util::signal::register_signal_handler;

use super::Kind;
use crate::screen::terminal;

/// `si_code` of a signal that a filter raised.
const BY_A_FILTER: c_int = 1;

/// The beginning of `siginfo_t` for SIGSYS (`asm-generic/siginfo.h`).
#[repr(C)]
struct Refused {
    _signal: c_int,
    _errno: c_int,
    code: c_int,
    _padding: c_int,
    _address: *const c_void,
    call: c_int,
}

/// Who a confined thread is, where a signal handler can look: it has no destructor and needs no memory.
#[derive(Clone, Copy)]
struct Confined {
    name: Text<32>,
    plural: &'static str,
}

thread_local! {
    static CONFINED: Cell<Confined> = const { Cell::new(Confined { name: Text::new(), plural: "" }) };
}

/// Takes SIGSYS, and has the C library's memory come from one arena. Others would be trimmed by threads that are
/// confined by then, and glibc opens a file of `/proc` the first time. Nothing that has to be fast takes memory. What
/// rustix asks the kernel for once (the auxiliary vector: the size of a page, the vDSO) it asks here.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustix::param::page_size();
        // It can only fail on a signal number that does not exist.
        let _ = register_signal_handler(libc::SIGSYS, handle);
        #[cfg(target_env = "gnu")]
        // SAFETY: a number for the allocator, which takes its own lock. If it is refused, so may a thread be later.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    });
}

/// Confines the calling thread by `program`; after [`prepare`].
///
/// # Errors
/// The kernel's: one without seccomp, or out of memory.
pub(super) fn install(kind: Kind, program: &[sock_filter]) -> io::Result<()> {
    prepare();
    let mut name = Text::new();
    name.push(std::thread::current().name().unwrap_or_default());
    CONFINED.set(Confined { name, plural: kind.plural() });

    rustix::thread::set_no_new_privs(true)?;
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    // The kernel only reads, and both are the `struct sock_filter` of linux/filter.h.
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    let program = libc::sock_fprog { len, filter };
    let install = |flags: libc::c_ulong| -> c_long {
        // SAFETY: the kernel reads the program and its `len` instructions, which outlive the call.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) }
    };
    // A kernel before 4.17 does not know the flag.
    if install(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) != 0 && install(0) != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ends the program. Carried out wherever the thread was, with any lock held, so it takes none and needs no memory.
extern "C" fn handle(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO the address of a `siginfo_t`, which begins like that.
    let Refused { code, call, .. } = *unsafe { &*info.cast::<Refused>() };
    if code != BY_A_FILTER {
        return;
    }
    terminal::restore_at_once();
    let confined = CONFINED.get();
    let name = usize::try_from(call).ok().and_then(Sysno::new).map_or("an unknown call", |call| call.name());
    let mut line = Text::<400>::new();
    for part in ["trapline: the thread ", confined.name.as_str(), " asked the kernel for ", name, " ("] {
        line.push(part);
    }
    line.push_number(call);
    for part in [
        "), which ",
        confined.plural,
        " have no use for: a bug in trapline, or somebody's attack by way of one; please report it. \
         --seccomp off does without the check\n",
    ] {
        line.push(part);
    }
    // Nobody is left to be told that standard error is closed.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    // SAFETY: unlike `exit` it runs nothing that other threads might be in the middle of.
    unsafe { libc::_exit(1) }
}

/// Text of at most `N` bytes; what does not fit is left out.
#[derive(Clone, Copy)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Text { bytes: [0; N], len: 0 }
    }

    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }

    fn push_number(&mut self, number: c_int) {
        let mut digits = [0; 10];
        let mut first = digits.len();
        let mut left = number.unsigned_abs();
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
            left /= 10;
            first -= 1;
            if left == 0 {
                break;
            }
        }
        self.push(if number < 0 { "-" } else { "" });
        self.push(digits.get(first..).and_then(|digits| str::from_utf8(digits).ok()).unwrap_or_default());
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Cut within a character it is nothing.
    fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_memory() {
        for number in [0, 7, 257, i32::MAX, -1, i32::MIN] {
            let mut text = Text::<16>::new();
            text.push_number(number);
            assert_eq!(text.as_str(), number.to_string());
        }
        let mut text = Text::<4>::new();
        text.push("abcdef");
        assert_eq!(text.as_str(), "abcd");
    }
}
