//! Write Weir plugins in Rust. No dependencies, no allocator, no `std`.
//!
//! ```ignore
//! #![no_std]
//! use weir::{Event, Kind, Manifest, Plugin, Subscription};
//!
//! struct NoDdl;
//!
//! impl Plugin for NoDdl {
//!     const MANIFEST: Manifest = Manifest {
//!         name: "no-ddl",
//!         version: "1.0.0",
//!         subscribe: &[Subscription { kinds: &[Kind::Command], ..Subscription::NONE }],
//!         ..Manifest::DEFAULT
//!     };
//!     fn configure(_: weir::json::Value) -> Result<Self, &'static str> {
//!         Ok(NoDdl)
//!     }
//!     fn on_command(&mut self, e: &mut Event) {
//!         if e.effects().any(|x| x == b"ddl") {
//!             e.deny("no-ddl", "the schema is not changed here", "write a migration");
//!         }
//!     }
//! }
//!
//! weir::plugin!(NoDdl);
//! weir::no_std!();
//! ```
//!
//! The contract behind it is `sdk/ABI.md`. An instance serves one session after the other: keep nothing of an event.
#![cfg_attr(not(test), no_std)]

mod event;
#[doc(hidden)]
pub mod guest;
mod host;
pub mod json;
mod manifest;

pub use event::{fill, has, Attributes, Class, Column, Event, Resource};
pub use host::{count, found, kv_get, kv_incr, kv_put, kv_remove, log, now, observe, Level};
pub use manifest::{Kind, Manifest, Metric, OnError, Subscription};

/// A plugin: what it says of itself, how it is made, and one handler for each kind of event.
pub trait Plugin: Sized {
    /// What the gateway reads before anything else.
    const MANIFEST: Manifest;

    /// Makes the plugin of an instance from its configuration. An error refuses to start.
    fn configure(config: json::Value<'_>) -> Result<Self, &'static str>;

    /// Of a plugin whose manifest says `connection`: a session begins, before its first event. An error refuses it.
    fn begin(&mut self, _: &mut Event<'_>) -> Result<(), &'static str> {
        Ok(())
    }
    /// The session of this instance is over.
    fn end(&mut self, _session: u64) {}
    /// A client asks for a session.
    fn on_open(&mut self, _: &mut Event<'_>) {}
    /// A client wants something done.
    fn on_command(&mut self, _: &mut Event<'_>) {}
    /// The shape of an answer.
    fn on_columns(&mut self, _: &mut Event<'_>) {}
    /// A batch of rows.
    fn on_rows(&mut self, _: &mut Event<'_>) {}
    /// A piece of a stream.
    fn on_bytes(&mut self, _: &mut Event<'_>) {}
    /// How a command ended, or a notice.
    fn on_result(&mut self, _: &mut Event<'_>) {}
    /// The session is over.
    fn on_close(&mut self, _: &mut Event<'_>) {}
}

/// Makes a type the plugin of this module.
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        static mut WEIR_PLUGIN: Option<$plugin> = None;

        #[no_mangle]
        pub extern "C" fn weir_abi_v1() -> i32 {
            0
        }
        #[no_mangle]
        pub extern "C" fn weir_describe() -> u64 {
            $crate::guest::describe(&<$plugin as $crate::Plugin>::MANIFEST)
        }
        #[no_mangle]
        pub extern "C" fn weir_buffer(least: u32) -> u32 {
            $crate::guest::buffer(least)
        }
        #[no_mangle]
        pub extern "C" fn weir_configure(at: u32, n: u32) -> i32 {
            // An instance has one thread, and the host makes one call at a time.
            unsafe { $crate::guest::configure(&mut *core::ptr::addr_of_mut!(WEIR_PLUGIN), at, n) }
        }
        #[no_mangle]
        pub extern "C" fn weir_open(at: u32, n: u32) -> i32 {
            unsafe { $crate::guest::open(&mut *core::ptr::addr_of_mut!(WEIR_PLUGIN), at, n) }
        }
        #[no_mangle]
        pub extern "C" fn weir_close(session: u64) {
            if let Some(p) = unsafe { &mut *core::ptr::addr_of_mut!(WEIR_PLUGIN) } {
                $crate::Plugin::end(p, session);
            }
        }
        #[no_mangle]
        pub extern "C" fn weir_on_batch(at: u32, n: u32) -> u64 {
            unsafe { $crate::guest::on_batch(&mut *core::ptr::addr_of_mut!(WEIR_PLUGIN), at, n) }
        }
    };
}

/// Says what a panic does in a module without `std`: the host sees a trap, and refuses the event.
#[macro_export]
macro_rules! no_std {
    () => {
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            core::arch::wasm32::unreachable()
        }
    };
}
