//! ARM semihosting: the core asks its debugger or emulator for a service with `bkpt 0xab`.
//!
//! Operations and reasons as in Arm's "Semihosting for AArch32 and AArch64".

use core::arch::asm;
use core::fmt;

const SYS_WRITEC: u32 = 0x03;
const SYS_EXIT: u32 = 0x18;
/// ADP_Stopped_ApplicationExit: the reason for SYS_EXIT that a 32-bit core gives for success.
const APPLICATION_EXIT: u32 = 0x2_0026;
/// ADP_Stopped_RunTimeErrorUnknown.
const RUN_TIME_ERROR: u32 = 0x2_0023;

fn call(operation: u32, argument: u32) {
    // SAFETY: bkpt 0xab hands control to the debugger. The two operations used here only read memory: the byte
    // that the argument of SYS_WRITEC points to, which is alive during the call. r0 returns a value.
    unsafe {
        asm!("bkpt 0xab", inout("r0") operation => _, in("r1") argument, options(nostack, preserves_flags, readonly));
    }
}

/// The debugger's console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.as_bytes() {
            call(SYS_WRITEC, core::ptr::from_ref(byte).expose_provenance() as u32);
        }
        Ok(())
    }
}

/// Ends the run: the emulator exits with status 0 for success and 1 otherwise.
pub fn exit(success: bool) -> ! {
    call(SYS_EXIT, if success { APPLICATION_EXIT } else { RUN_TIME_ERROR });
    loop {
        core::hint::spin_loop();
    }
}
