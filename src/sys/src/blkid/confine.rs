//! Giving up every right but reading the disk and answering.

use std::io;

use libc::{c_long, sock_filter, sock_fprog};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::alarm;

/// libblkid keeps small buffers; a superblock that makes it want more is lying.
const MEMORY_LIMIT: u64 = 512 << 20;
const CPU_SECONDS: u64 = 10;
/// Ends the child even when its parent died and nobody waits.
const WALL_SECONDS: u32 = 60;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data` (`<linux/seccomp.h>`); the low halves of the arguments, since we build for
/// little-endian machines.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
const fn at_argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Reading, memory, time and ending. No opening of files, no sockets, no processes.
const ALLOWED: [c_long; 22] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_close,
    libc::SYS_fadvise64,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_uname,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What libblkid asks of a device to learn its size and kind. All of them only look.
const IOCTLS: [u32; 11] = [
    0x8008_1272, // BLKGETSIZE64
    0x1268,      // BLKSSZGET
    0x127b,      // BLKPBSZGET
    0x1278,      // BLKIOMIN
    0x1279,      // BLKIOOPT
    0x127a,      // BLKALIGNOFF
    0x125e,      // BLKROGET
    0x8008_1280, // BLKGETDISKSEQ
    0x5326,      // CDROM_DRIVE_STATUS
    0x5331,      // CDROM_GET_CAPABILITY
    0x5395,      // CDROM_LAST_WRITTEN
];

/// Confines the calling thread, for good. What is not allowed fails with EPERM, which libblkid takes as "cannot be
/// known" for the few extras it asks of sysfs.
///
/// # Errors
/// When the kernel does not do it; the caller must not probe then.
pub(crate) fn confine() -> io::Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY_LIMIT),
        (Resource::RLIMIT_CPU, CPU_SECONDS),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    alarm::set(WALL_SECONDS);
    nix::sys::prctl::set_no_new_privs()?;
    install(&program())
}

fn install(program: &[sock_filter]) -> io::Result<()> {
    let filter = sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` points to `len` instructions that outlive the call; the kernel copies them and never writes
    // through the pointer. nix has no call for seccomp.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const ALLOW: sock_filter = instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
#[allow(clippy::cast_sign_loss, reason = "errno numbers are small and positive")]
const DENY: sock_filter = instruction(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0);

/// `skip_if` and `skip_else` count instructions to jump over.
#[allow(clippy::cast_possible_truncation, reason = "all BPF opcodes are below 256")]
const fn instruction(code: u32, k: u32, skip_if: u8, skip_else: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: skip_if, jf: skip_else, k }
}

fn program() -> Vec<sock_filter> {
    let mut program = vec![
        instruction(LOAD, AT_ARCH, 0, 0),
        instruction(IF_EQUAL, ARCH, 1, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        instruction(LOAD, AT_NUMBER, 0, 0),
    ];
    for call in ALLOWED {
        program.extend([instruction(IF_EQUAL, number(call), 0, 1), ALLOW]);
    }
    // The answer, and a panic's message.
    for call in [libc::SYS_write, libc::SYS_writev] {
        only_with(&mut program, call, 0, &[1, 2]);
    }
    only_with(&mut program, libc::SYS_ioctl, 1, &IOCTLS);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        never_executable(&mut program, call);
    }
    program.push(DENY);
    program
}

/// Allows `call` if the argument has one of the values. The accumulator holds the call's number on entry, and where
/// the block is skipped.
fn only_with(program: &mut Vec<sock_filter>, call: c_long, argument: u32, values: &[u32]) {
    let block = 2 + 2 * values.len();
    program.push(instruction(IF_EQUAL, number(call), 0, u8::try_from(block).unwrap_or(u8::MAX)));
    program.push(instruction(LOAD, at_argument(argument), 0, 0));
    for value in values {
        program.extend([instruction(IF_EQUAL, *value, 0, 1), ALLOW]);
    }
    program.push(DENY);
}

/// Memory that was data never becomes code.
#[allow(clippy::cast_sign_loss, reason = "PROT_EXEC is 4")]
fn never_executable(program: &mut Vec<sock_filter>, call: c_long) {
    program.extend([
        instruction(IF_EQUAL, number(call), 0, 4),
        instruction(LOAD, at_argument(2), 0, 0),
        instruction(IF_BITS, libc::PROT_EXEC as u32, 1, 0),
        ALLOW,
        DENY,
    ]);
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("system call numbers are small and positive")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would, on a call with these arguments.
    fn verdict(call: c_long, arguments: [u32; 3]) -> u32 {
        let program = program();
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let i = program[at];
            at += 1;
            match u32::from(i.code) {
                LOAD => {
                    accumulator = match i.k {
                        AT_NUMBER => number(call),
                        AT_ARCH => ARCH,
                        k => arguments[usize::try_from((k - 16) / 8).expect("small")],
                    }
                }
                IF_EQUAL => at += usize::from(if accumulator == i.k { i.jt } else { i.jf }),
                IF_BITS => at += usize::from(if accumulator & i.k != 0 { i.jt } else { i.jf }),
                RETURN => return i.k,
                other => panic!("instruction {other:#x} is not one of ours"),
            }
        }
    }

    #[test]
    fn looking_is_allowed_and_nothing_else() {
        for call in ALLOWED {
            assert_eq!(verdict(call, [0; 3]), libc::SECCOMP_RET_ALLOW, "call {call}");
        }
        assert_eq!(verdict(libc::SYS_write, [1, 0, 0]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(libc::SYS_write, [0, 0, 0]), DENY.k, "never to the disk");
        assert_eq!(verdict(libc::SYS_writev, [7, 0, 0]), DENY.k);
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x8008_1272, 0]), libc::SECCOMP_RET_ALLOW);
        // BLKDISCARD, SG_IO
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x1277, 0]), DENY.k);
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x2285, 0]), DENY.k);
        assert_eq!(verdict(libc::SYS_mmap, [0, 4096, 3]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(libc::SYS_mmap, [0, 4096, 7]), DENY.k);
        assert_eq!(verdict(libc::SYS_mprotect, [0, 4096, 5]), DENY.k);
        for call in [
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_socket,
            libc::SYS_clone,
            libc::SYS_ptrace,
            libc::SYS_pwrite64,
            libc::SYS_kill,
        ] {
            assert_eq!(verdict(call, [1; 3]), DENY.k, "call {call}");
        }
    }
}
