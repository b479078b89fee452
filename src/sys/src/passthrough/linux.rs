//! The kernel's ways for these commands: `NVME_IOCTL_ADMIN_CMD` and `SG_IO`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use super::questions::{is_nvme_question, is_scsi_question};
use super::{CommandError, Data, NvmeCommand, Passthrough, ScsiAnswer, Sense, nvme};
use crate::claim::ClaimedDisk;
use crate::inflight;
use crate::peek::Peek;

mod raw {
    // linux/nvme_ioctl.h: NVME_IOCTL_ID and NVME_IOCTL_RESCAN, which are _IO('N', 0x40) and _IO('N', 0x46), and
    // NVME_IOCTL_ADMIN_CMD; scsi/sg.h: SG_IO.
    nix::ioctl_none!(nvme_id, b'N', 0x40);
    nix::ioctl_none!(nvme_rescan, b'N', 0x46);
    nix::ioctl_readwrite!(nvme_admin_cmd, b'N', 0x41, super::NvmePassthruCmd);
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, super::SgIoHdr);
}

/// linux/nvme_ioctl.h: `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
pub(super) struct NvmePassthruCmd {
    opcode: u8,
    flags: u8,
    rsvd1: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<NvmePassthruCmd>() == 72, "struct nvme_passthru_cmd");

/// scsi/sg.h: `struct sg_io_hdr`.
#[repr(C)]
pub(super) struct SgIoHdr {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut libc::c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: u32,
    info: u32,
}

const _: () = assert!(size_of::<SgIoHdr>() == 88, "struct sg_io_hdr on a machine of 64 bits");

const SENSE_LENGTH: usize = 252;

fn millis(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}

/// For a call that failed before the device had the command, or whose answer got lost.
fn failed(command: &'static str, source: io::Error) -> CommandError {
    match source.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM | libc::EACCES) => {
            CommandError::NoWay { command, source }
        }
        _ => CommandError::Lost { command, source },
    }
}

fn nvme_namespace(file: &File) -> Result<u32, CommandError> {
    const NAME: &str = "NVMe namespace id";
    // SAFETY: NVME_IOCTL_ID takes no argument.
    let id = unsafe { raw::nvme_id(file.as_raw_fd()) }.map_err(|errno| failed(NAME, errno.into()))?;
    u32::try_from(id).map_err(|e| failed(NAME, io::Error::other(e)))
}

/// Has the kernel ask a controller again which namespaces it has.
pub(crate) fn nvme_rescan(controller: &File) -> Result<(), CommandError> {
    // SAFETY: NVME_IOCTL_RESCAN takes no argument.
    let asked = unsafe { raw::nvme_rescan(controller.as_raw_fd()) };
    asked.map(drop).map_err(|errno| failed("NVMe rescan", errno.into()))
}

/// `device` is whose the descriptor is, for whoever asks what is under way.
pub(crate) fn nvme_admin(
    file: &File,
    device: &str,
    name: &'static str,
    command: &NvmeCommand,
    data: Data<'_>,
    limit: Duration,
) -> Result<u32, CommandError> {
    let _asked = inflight::ask_within(name, device, limit);
    let length = u32::try_from(data.len()).map_err(|e| failed(name, io::Error::other(e)))?;
    let address = match data {
        Data::None => 0,
        Data::In(bytes) => bytes.as_mut_ptr().addr(),
        Data::Out(bytes) => bytes.as_ptr().addr(),
    };
    let mut passed = NvmePassthruCmd {
        opcode: command.opcode,
        nsid: command.namespace,
        addr: address as u64,
        data_len: length,
        cdw10: command.cdw10,
        cdw11: command.cdw11,
        cdw12: command.cdw12,
        cdw13: command.cdw13,
        cdw14: command.cdw14,
        cdw15: command.cdw15,
        timeout_ms: millis(limit),
        ..NvmePassthruCmd::default()
    };
    // SAFETY: the kernel reads and writes one nvme_passthru_cmd, which `passed` is laid out as (its size is asserted),
    // and at most `data_len` bytes at `addr`, which `data` borrows, mutably where the device writes, until this returns.
    // The direction of the transfer follows from the opcode's lowest bits, which every caller's data agree with.
    let status = unsafe { raw::nvme_admin_cmd(file.as_raw_fd(), &raw mut passed) };
    match status {
        Ok(0) => Ok(passed.result),
        Ok(status) => Err(nvme::declined(name, status)),
        Err(errno) => Err(failed(name, errno.into())),
    }
}

fn scsi(
    file: &File,
    device: &str,
    name: &'static str,
    cdb: &[u8],
    data: Data<'_>,
    limit: Duration,
) -> Result<ScsiAnswer, CommandError> {
    let _asked = inflight::ask_within(name, device, limit);
    const SG_DXFER_NONE: libc::c_int = -1;
    const SG_DXFER_TO_DEV: libc::c_int = -2;
    const SG_DXFER_FROM_DEV: libc::c_int = -3;
    let bad = |e| failed(name, io::Error::other(e));
    let (cmd_len, dxfer_len) = (u8::try_from(cdb.len()).map_err(bad)?, u32::try_from(data.len()).map_err(bad)?);
    let mut sense = [0u8; SENSE_LENGTH];
    let (dxfer_direction, dxferp) = match data {
        Data::None => (SG_DXFER_NONE, std::ptr::null_mut()),
        Data::In(bytes) => (SG_DXFER_FROM_DEV, bytes.as_mut_ptr().cast()),
        Data::Out(bytes) => (SG_DXFER_TO_DEV, bytes.as_ptr().cast_mut().cast()),
    };
    let mut header = SgIoHdr {
        interface_id: libc::c_int::from(b'S'),
        dxfer_direction,
        cmd_len,
        mx_sb_len: u8::try_from(SENSE_LENGTH).unwrap_or(u8::MAX),
        iovec_count: 0,
        dxfer_len,
        dxferp,
        cmdp: cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: millis(limit),
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the kernel reads and writes one sg_io_hdr, which `header` is laid out as (its size is asserted); it reads
    // `cmd_len` bytes of `cdb`, writes at most `mx_sb_len` of `sense`, and moves at most `dxfer_len` bytes of `data` in the
    // direction that `data` is borrowed for. All of them outlive the call.
    unsafe { raw::sg_io(file.as_raw_fd(), &raw mut header) }.map_err(|errno| failed(name, errno.into()))?;
    if header.host_status != 0 {
        let source = io::Error::other(format!("the adaptor says {:#04x}", header.host_status));
        return Err(CommandError::Lost { command: name, source });
    }
    let sense = Sense::parse(sense.get(..usize::from(header.sb_len_wr)).unwrap_or_default());
    Ok(ScsiAnswer { status: header.status, sense })
}

impl Passthrough for ClaimedDisk {
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<u32, CommandError> {
        nvme_admin(self.descriptor(), self.name(), name, command, data, limit)
    }

    fn nvme_namespace(&self) -> Result<u32, CommandError> {
        nvme_namespace(self.descriptor())
    }

    fn scsi(
        &self,
        name: &'static str,
        cdb: &[u8],
        data: Data<'_>,
        limit: Duration,
    ) -> Result<ScsiAnswer, CommandError> {
        scsi(self.descriptor(), self.name(), name, cdb, data, limit)
    }
}

/// A disk that nobody has claimed is only asked.
fn only_asked(command: &'static str) -> CommandError {
    let source = io::Error::other("it may change the disk, which is not claimed");
    CommandError::NoWay { command, source }
}

impl Passthrough for Peek {
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<u32, CommandError> {
        if !is_nvme_question(command, &data) {
            return Err(only_asked(name));
        }
        nvme_admin(self.descriptor(), &self.disk().name, name, command, data, limit)
    }

    fn nvme_namespace(&self) -> Result<u32, CommandError> {
        nvme_namespace(self.descriptor())
    }

    fn scsi(
        &self,
        name: &'static str,
        cdb: &[u8],
        data: Data<'_>,
        limit: Duration,
    ) -> Result<ScsiAnswer, CommandError> {
        if !is_scsi_question(cdb, &data) {
            return Err(only_asked(name));
        }
        scsi(self.descriptor(), &self.disk().name, name, cdb, data, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_file_takes_no_commands() {
        let file = tempfile::tempfile().expect("a file");
        let error =
            nvme_admin(&file, "a file", "Identify", &NvmeCommand::default(), Data::None, Duration::from_secs(1));
        assert!(matches!(error, Err(CommandError::NoWay { .. })), "{error:?}");
        let error =
            scsi(&file, "a file", "INQUIRY", &[0x12, 0, 0, 0, 36, 0], Data::In(&mut [0; 36]), Duration::from_secs(1));
        let Err(error @ CommandError::NoWay { .. }) = error else { panic!("{error:?}") };
        assert!(error.source().is_some() && error.to_string().contains("INQUIRY"));
    }
}
