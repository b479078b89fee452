//! The probing child alone, for the tests of this crate and for trying it on an image file:
//! `probe-superblock <disk.img`.

fn main() -> std::process::ExitCode {
    match speediso_sys::blkid::child_main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
