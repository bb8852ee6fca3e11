//! What the host offers.

/// How much a line of the log matters.
#[derive(Clone, Copy)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "weir_v1")]
    extern "C" {
        pub fn log(level: i32, at: *const u8, n: usize);
        pub fn emit(at: *const u8, n: usize);
        pub fn metric_add(id: u32, delta: i64);
        pub fn metric_observe(id: u32, x: f64);
        pub fn now_ns() -> i64;
        pub fn kv_get(key: *const u8, n: usize, out: *mut u8, room: usize) -> i32;
        pub fn kv_put(key: *const u8, n: usize, value: *const u8, m: usize, ttl_ms: i64) -> i32;
        pub fn kv_incr(key: *const u8, n: usize, delta: i64, ttl_ms: i64) -> i64;
    }
}

/// Outside of a gateway, in a plugin's own tests, there is nobody to tell.
#[cfg(not(target_arch = "wasm32"))]
mod imports {
    pub unsafe fn log(_: i32, _: *const u8, _: usize) {}
    pub unsafe fn emit(_: *const u8, _: usize) {}
    pub unsafe fn metric_add(_: u32, _: i64) {}
    pub unsafe fn metric_observe(_: u32, _: f64) {}
    pub unsafe fn now_ns() -> i64 {
        0
    }
    pub unsafe fn kv_get(_: *const u8, _: usize, _: *mut u8, _: usize) -> i32 {
        -1
    }
    pub unsafe fn kv_put(_: *const u8, _: usize, _: *const u8, _: usize, _: i64) -> i32 {
        -1
    }
    pub unsafe fn kv_incr(_: *const u8, _: usize, _: i64, _: i64) -> i64 {
        i64::MIN
    }
}

/// Writes a line to the gateway's log: at most 32 lines and 8 KiB a call. It must not hold values.
pub fn log(level: Level, text: &str) {
    unsafe { imports::log(level as i32, text.as_ptr(), text.len()) }
}

/// Adds a finding to the record of the present event: what was found, and more about it, in pieces that are put together.
/// What is over 256 bytes is cut off. It must not hold the value itself.
pub fn found(what: &[u8], more: &[&[u8]]) {
    let (mut b, mut n) = ([0u8; 256], 0);
    let mut put = |s: &[u8], most: usize| {
        for &c in s {
            if n < most {
                b[n] = c;
                n += 1;
            }
        }
    };
    put(what, 128);
    put(&[0], 129);
    for m in more {
        put(m, 256);
    }
    unsafe { imports::emit(b.as_ptr(), n) }
}

/// Adds to a counter of the plugin's own.
pub fn count(id: u32, delta: i64) {
    unsafe { imports::metric_add(id, delta) }
}

/// Adds an observation to a histogram of the plugin's own.
pub fn observe(id: u32, x: f64) {
    unsafe { imports::metric_observe(id, x) }
}

/// The time in nanoseconds since 1970, or 0 where the plugin did not ask for the clock.
pub fn now() -> i64 {
    unsafe { imports::now_ns() }
}

/// Copies the value of a key, which the instances of a plugin share, to `out` if it has room, and returns its length; None where
/// there is none. For plugins whose manifest says `kv`.
pub fn kv_get(key: &[u8], out: &mut [u8]) -> Option<usize> {
    usize::try_from(unsafe { imports::kv_get(key.as_ptr(), key.len(), out.as_mut_ptr(), out.len()) }).ok()
}

/// Sets a key for `ttl_ms` milliseconds, or for good with 0. False: there was no room.
pub fn kv_put(key: &[u8], value: &[u8], ttl_ms: i64) -> bool {
    unsafe { imports::kv_put(key.as_ptr(), key.len(), value.as_ptr(), value.len(), ttl_ms) == 0 }
}

/// Removes a key.
pub fn kv_remove(key: &[u8]) {
    unsafe { imports::kv_put(key.as_ptr(), key.len(), core::ptr::null(), u32::MAX as usize, 0) };
}

/// Adds to a counter, which is made at 0 and lasts `ttl_ms` milliseconds from then, or for good with 0, and returns what it is
/// now. None: there was no room, or the value is no counter.
pub fn kv_incr(key: &[u8], delta: i64, ttl_ms: i64) -> Option<i64> {
    match unsafe { imports::kv_incr(key.as_ptr(), key.len(), delta, ttl_ms) } {
        i64::MIN => None,
        n => Some(n),
    }
}
