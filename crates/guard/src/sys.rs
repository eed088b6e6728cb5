//! The six calls that the compiler can't check. Nothing else in the crate is unsafe.
//!
//! **Invariant:** each function has one caller, and its SAFETY comment says what it relies on there.
//! It decides nothing.

use crate::shared::Shared;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::c_int;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Maps the shared page. The mapping is never undone: one page for each start of Postgres is a fair price
/// for a reference that can't dangle.
#[allow(
    unsafe_code,
    reason = "a mapping shared between two processes is outside what Rust can see"
)]
pub(crate) fn map(fd: BorrowedFd<'_>) -> Result<&'static Shared, Errno> {
    use rustix::mm::{MapFlags, ProtFlags};
    let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    let sealed = rustix::fs::fcntl_get_seals(fd)?.contains(rustix::fs::SealFlags::SHRINK);
    if size < size_of::<Shared>() as u64 || !sealed {
        return Err(Errno::INVAL);
    }
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address that the kernel picks, page-aligned, of a file that is at least
    // as long as `Shared` and sealed against shrinking. `Shared` is made of atomics only, for which every
    // bit pattern is valid, and other processes touch it through atomics only. It is never unmapped.
    unsafe {
        let page = rustix::mm::mmap(
            std::ptr::null_mut(),
            size_of::<Shared>(),
            rights,
            MapFlags::SHARED,
            fd,
            0,
        )?;
        Ok(&*page.cast::<Shared>())
    }
}

/// Blocks every signal of this thread and returns a descriptor that reads them instead.
#[allow(unsafe_code, reason = "signal mask and signalfd exist in libc only")]
pub(crate) fn take_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigfillset before it is read; the descriptor is new and ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Closes every descriptor from 3 up: what a parent leaked must not live as long as Postgres does.
/// Call it before anything of this process is open.
#[allow(unsafe_code, reason = "descriptors that no Rust value owns")]
pub(crate) fn close_inherited() {
    // SAFETY: called first thing in the guard's process, when no Rust value owns a descriptor above 2.
    // An old kernel without the call (before 5.9) answers ENOSYS and nothing is closed.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as c_int, c_int::MAX, 0 as c_int) };
}

/// Makes the child of `command` die with `guard`, and puts it into a cgroup where there is one.
#[allow(unsafe_code, reason = "code between fork and exec")]
pub(crate) fn bind_child(command: &mut Command, guard: Pid, cgroup_procs: Option<OwnedFd>) {
    let step = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The guard may have died before the line above: then nobody would send the signal.
        if rustix::process::getppid() != Some(guard) {
            return Err(Errno::SRCH.into());
        }
        if let Some(procs) = &cgroup_procs {
            // Refused: the guard sees the cgroup empty and walks the descendants instead.
            let _refused = rustix::io::write(procs, b"0");
        }
        Ok(())
    };
    // SAFETY: the step makes plain system calls on values prepared before the fork, and the forking process
    // has a single thread, so no lock can be held by a thread that is gone.
    unsafe { command.pre_exec(step) };
}

/// Runs `last_words` in a forked child, which then exits. Says whether the fork worked.
#[allow(unsafe_code, reason = "fork without exec")]
pub(crate) fn in_child(last_words: impl FnOnce()) -> bool {
    // SAFETY: this process has a single thread, and the child leaves by _exit: no destructor of the parent
    // runs twice.
    unsafe {
        match libc::fork() {
            -1 => false,
            0 => {
                last_words();
                libc::_exit(0)
            }
            _ => true,
        }
    }
}

/// Has a watchdog device count `seconds`. Says how many it counts, and whether it rests when it is told to and closed.
#[allow(unsafe_code, reason = "the device's own requests exist as ioctl only")]
pub(crate) fn watchdog_timeout(device: BorrowedFd<'_>, seconds: u32) -> Result<(u32, bool), Errno> {
    use std::os::fd::AsRawFd;
    /// linux/watchdog.h: options, firmware version, identity.
    #[repr(C)]
    struct Info {
        options: u32,
        version: u32,
        identity: [u8; 32],
    }
    const GET_SUPPORT: libc::c_ulong = 0x8028_5700;
    const SET_TIMEOUT: libc::c_ulong = 0xC004_5706;
    const GET_TIMEOUT: libc::c_ulong = 0x8004_5707;
    const RESTS: u32 = 0x0100;
    let asked = |answer: c_int| match answer {
        0.. => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    };
    let fd = device.as_raw_fd();
    let mut info = Info {
        options: 0,
        version: 0,
        identity: [0; 32],
    };
    let mut count = c_int::try_from(seconds).unwrap_or(c_int::MAX);
    // SAFETY: each request writes at most what is behind its pointer: 40 bytes, and one int twice. Whatever a foreign
    // driver makes of it, both are plain numbers.
    unsafe {
        asked(libc::ioctl(fd, GET_SUPPORT as _, &raw mut info))?;
        // One with a fixed count refuses; what it counts is asked below.
        let _fixed = libc::ioctl(fd, SET_TIMEOUT as _, &raw mut count);
        asked(libc::ioctl(fd, GET_TIMEOUT as _, &raw mut count))?;
    }
    let counts = u32::try_from(count).map_err(|_| Errno::RANGE)?;
    Ok((counts, info.options & RESTS != 0))
}
