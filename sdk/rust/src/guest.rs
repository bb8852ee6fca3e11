//! Behind the exports: the region, the configuration, one call for one frame.

use crate::{json, log, Event, Kind, Level, Manifest, Plugin};

const PAGE: usize = 65536;
const DESCRIBED: usize = 16 << 10;

#[cfg(target_arch = "wasm32")]
fn grow(pages: usize) -> Option<usize> {
    match core::arch::wasm32::memory_grow(0, pages) {
        usize::MAX => None,
        old => Some(old),
    }
}
#[cfg(target_arch = "wasm32")]
fn size() -> usize {
    core::arch::wasm32::memory_size(0)
}
#[cfg(not(target_arch = "wasm32"))]
fn grow(_: usize) -> Option<usize> {
    None
}
#[cfg(not(target_arch = "wasm32"))]
fn size() -> usize {
    0
}

static mut REGION: (usize, usize) = (0, 0); // pages: where it begins, how many

pub fn describe(m: &Manifest) -> u64 {
    static mut TEXT: [u8; DESCRIBED] = [0; DESCRIBED];
    let text = unsafe { &mut *core::ptr::addr_of_mut!(TEXT) };
    let n = m.write(text).unwrap_or(0); // nothing is no manifest: the host says so
    (text.as_ptr() as u64) << 32 | n as u64
}

pub fn buffer(least: u32) -> u32 {
    let want = (least as usize + PAGE - 1) / PAGE;
    let (at, have) = unsafe { REGION };
    if want > have {
        let begin = if have > 0 && at + have == size() {
            grow(want - have).map(|_| at) // nothing came behind it: it grows where it is
        } else {
            grow(want)
        };
        match begin {
            Some(at) => unsafe { REGION = (at, want) },
            None => return 0,
        }
    }
    unsafe { (REGION.0 * PAGE) as u32 }
}

/// A piece of the region.
unsafe fn view<'a>(at: u32, n: u32) -> Option<&'a mut [u8]> {
    let (begin, pages) = REGION;
    let (at, n) = (at as usize, n as usize);
    if pages == 0 || at < begin * PAGE || n > pages * PAGE || at - begin * PAGE > pages * PAGE - n {
        return None;
    }
    Some(core::slice::from_raw_parts_mut(at as *mut u8, n))
}

/// # Safety
/// at and n are what the host was given by buffer, and nothing else uses the region.
pub unsafe fn configure<P: Plugin>(plugin: &mut Option<P>, at: u32, n: u32) -> i32 {
    let made = match view(at, n).and_then(|b| json::parse(b)) {
        Some(v) => P::configure(v),
        None => Err("the configuration is no JSON"),
    };
    match made {
        Ok(p) => {
            *plugin = Some(p);
            0
        }
        Err(why) => {
            log(Level::Error, why);
            -1
        }
    }
}

/// # Safety
/// As of configure.
pub unsafe fn open<P: Plugin>(plugin: &mut Option<P>, at: u32, n: u32) -> i32 {
    let answer = match (plugin.as_mut(), view(at, n).and_then(|b| Event::parse(b))) {
        (Some(p), Some(mut e)) => p.begin(&mut e).and(e.answer().map(|_| ())),
        (None, _) => Err("it was not configured"),
        (_, None) => Err("the frame cannot be read"),
    };
    match answer {
        Ok(()) => 0,
        Err(why) => {
            log(Level::Error, why);
            -1
        }
    }
}

/// # Safety
/// As of configure.
pub unsafe fn on_batch<P: Plugin>(plugin: &mut Option<P>, at: u32, n: u32) -> u64 {
    let answer = match (plugin.as_mut(), view(at, n).and_then(|b| Event::parse(b))) {
        (Some(p), Some(mut e)) => {
            match e.kind {
                Kind::Open => p.on_open(&mut e),
                Kind::Command => p.on_command(&mut e),
                Kind::Columns => p.on_columns(&mut e),
                Kind::Rows => p.on_rows(&mut e),
                Kind::Bytes => p.on_bytes(&mut e),
                Kind::Result | Kind::Notice => p.on_result(&mut e),
                Kind::Close => p.on_close(&mut e),
            }
            e.answer()
        }
        (None, _) => Err("it was not configured"),
        (_, None) => Err("the frame cannot be read"),
    };
    let (verdict, aux) = answer.unwrap_or_else(|why| {
        log(Level::Error, why);
        (-1, 0)
    });
    u64::from(aux) << 32 | u64::from(verdict as u32)
}
